# Needs gcc (or clang) and GNU make. `make help` lists the targets.
CC ?= cc
CFLAGS ?= -O2
AR ?= ar

# Where `make install` puts what; DESTDIR comes before all of them.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
RUN ?= # what runs the tools if they are built for another machine (qemu-aarch64): help pages

# Added to the user's flags, never in place of them.
COMPILE = $(CC) -std=c11 -Wall -Wextra $(CPPFLAGS) $(CFLAGS) -pthread
LINK = $(LDFLAGS) -lm $(LDLIBS)

# For Windows: make CC=x86_64-w64-mingw32-gcc. The tools need no other files there.
ifneq ($(findstring mingw,$(shell $(CC) -dumpmachine 2>/dev/null)),)
EXE = .exe
OBJECT = megabyte.obj
LINK += -static
else
OBJECT = megabyte.o
endif

SOURCES = megabyte.h megabyte.c $(wildcard tools/*.[ch] tests/*.[ch] tests/bench/*.[ch] \
	tests/examples/*.c tests/examples/*/*.c)
TOOLS = tools/mbrun$(EXE) tools/mbconvert$(EXE)
MODELS = $(wildcard models/*.mb)

# Tests that #include a .c file to see inside; all others are linked with megabyte.o.
WHOLE = tests/bin/test_reference tests/bin/test_hostile tests/bin/test_convert tests/bin/test_long \
	tests/bin/test_gaps tests/bin/test_q4 tests/bin/test_picture tests/bin/test_image \
	tests/bin/test_sound tests/bin/test_hosts
LINKED = $(filter-out $(WHOLE),$(patsubst tests/%.c,tests/bin/%,$(wildcard tests/test_*.c)))
TEST_PARTS = $(wildcard tests/*.h) megabyte.c megabyte.h $(MBCONVERT) $(PICTURES) \
	tools/sound.c $(HEADERS)
FUZZED = $(filter-out sizes,$(patsubst tests/fuzz_%.c,%,$(wildcard tests/fuzz_*.c)))
SCRIPTS = tests/same_bits.sh tests/exports.sh tests/synopsis.sh tests/sections.sh tests/readme.sh \
	tests/packaging.sh tests/examples.sh

.PHONY: all lib shared docs demo test check fuzz has_fuzzer bench format install uninstall dist \
	clean help web

# ---------------------------------------------------------------------------------------- building
all: $(TOOLS) ## the tools (the default)

lib: libmegabyte.a ## libmegabyte.a; most programs just compile megabyte.c

$(OBJECT): megabyte.c megabyte.h
	$(COMPILE) -c megabyte.c -o $@

libmegabyte.a: $(OBJECT)
	$(AR) rcs $@ $(OBJECT)

VERSION := $(shell sed -n 's/^.define MEGABYTE_VERSION_STRING "\(.*\)"/\1/p' megabyte.h)
ABI = 0 # grows when a program that was linked before would no longer run
SONAME = libmegabyte.so.$(strip $(ABI))
shared: libmegabyte.so.$(VERSION) ## the shared library, libmegabyte.so.VERSION

libmegabyte.so.$(VERSION): megabyte.c megabyte.h tools/packaging/libmegabyte.map
	$(COMPILE) -fPIC -fvisibility=hidden \
	    '-DMEGABYTE_API=__attribute__((visibility("default")))' -shared megabyte.c -o $@ \
	    -Wl,-soname,$(SONAME) -Wl,--version-script=tools/packaging/libmegabyte.map \
	    -Wl,-Bsymbolic-functions $(LINK) # a program's functions of these names are others

HEADERS = megabyte.h $(wildcard tools/*.h)
SHARED = tools/common.c tools/options.c tools/output.c tools/host.c tools/windows.c
PICTURES = tools/picture.c tools/png.c tools/inflate.c tools/deflate.c
MBRUN = tools/mbrun.c tools/mbcommon.c tools/compress.c tools/input.c tools/list.c tools/against.c \
	tools/folders.c tools/payload.c tools/image.c tools/heatmap.c tools/textmap.c tools/tiles.c \
	tools/draw.c $(PICTURES) tools/recording.c tools/samples.c tools/sound.c \
	tools/mbbench.c tools/measure.c tools/parts.c tools/peak.c $(SHARED)
tools/mbrun$(EXE): $(MBRUN) $(HEADERS) $(OBJECT)
	$(COMPILE) $(MBRUN) $(OBJECT) -o $@ $(LINK)

MBCONVERT = tools/mbconvert.c tools/json.c tools/checkpoint.c tools/safetensors.c tools/pytorch.c \
	tools/config.c tools/families.c tools/names.c $(SHARED)
tools/mbconvert$(EXE): $(MBCONVERT) $(HEADERS) megabyte.c # library.h includes megabyte.c
	$(COMPILE) $(MBCONVERT) -o $@ $(LINK)

# The module and the page: needs clang, lld and wasi-libc with clang's run-time library for wasm32.
WEB = tools/web/dist
WASM = clang --target=wasm32-wasi -mexec-model=reactor -std=c11 -Wall -Wextra -O3 \
	-DMEGABYTE_NO_FILE -Wl,-z,stack-size=262144,--stack-first,--strip-all
web: ## tools/web/dist: an npm module and a static page (tools/web/README.md)
	@mkdir -p $(WEB)
	$(WASM) -msimd128 tools/web/glue.c megabyte.c -o $(WEB)/megabyte.wasm
	$(WASM) -DMEGABYTE_NO_SIMD tools/web/glue.c megabyte.c -o $(WEB)/megabyte-plain.wasm
	cp $(addprefix tools/web/,$(WEB_FILES)) models/text-small.mb $(WEB)
WEB_FILES = megabyte.mjs megabyte.d.ts package.json README.md index.html page.css page.mjs \
	worker.mjs

# ------------------------------------------------------------------------------------------- using
demo: tools/mbrun ## write 400 bytes with the shipped model
	tools/mbrun generate -m models/text.mb -p "It was a dark and stormy night" -n 400 --seed 1
	@echo

bench: tools/mbrun ## speed, beside this machine's limits
	tools/mbrun bench

# ----------------------------------------------------------------------------------------- testing
tests/bin:
	mkdir -p $@

$(WHOLE): tests/bin/%: tests/%.c $(TEST_PARTS) | tests/bin
	$(COMPILE) $< -o $@ $(LINK)

$(LINKED): tests/bin/%: tests/%.c $(TEST_PARTS) $(OBJECT) | tests/bin
	$(COMPILE) $< $(OBJECT) -o $@ $(LINK)

# Tests run side by side if make does (-j2); the command-line tests follow, one by one.
test: all shared $(WHOLE) $(LINKED) ## build everything and run the tests; faster with -j
	@$(MAKE) -s --no-print-directory $(addprefix run-,$(notdir $(LINKED) $(WHOLE) $(SCRIPTS)) \
	    $(addprefix fuzz_,$(FUZZED)))
	@for script in tests/cli_*.sh; do \
	    CC="$(CC)" CFLAGS="$(CFLAGS)" sh $$script || exit 1; \
	done
	@echo "All tests OK"

check: test ## the same, under GNU's name

# make run-test_api, run-exports.sh ... one test; its output comes in one piece.
run-test_%: tests/bin/test_% all
	@mkdir -p tests/tmp
	@$< >tests/tmp/$(<F).log 2>&1 && result=0 || result=1; \
	echo "test_$*"; cat tests/tmp/$(<F).log; exit $$result

run-fuzz_%: tests/bin/replay_%
	@mkdir -p tests/tmp
	@sh tests/fuzz.sh replay $* >tests/tmp/fuzz_$*.log 2>&1 && result=0 || result=1; \
	echo "fuzz_$*"; cat tests/tmp/fuzz_$*.log; exit $$result

run-%.sh: tests/%.sh all
	@mkdir -p tests/tmp
	@CC="$(CC)" CFLAGS="$(CFLAGS)" sh $< >tests/tmp/$(<F).log 2>&1 && result=0 || result=1; \
	echo "$*.sh"; cat tests/tmp/$(<F).log; exit $$result

run-packaging.sh run-examples.sh: lib shared docs

# tests/fuzz.h tells how the programs are linked and run. fuzz_sizes.c is one of another kind.
FUZZ_S ?= 60
FUZZ_CC ?= clang
# linked so that the programs run on machines without clang, too
FUZZ = $(FUZZ_CC) -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	-static-libstdc++ -static-libgcc
COVER = $(FUZZ_CC) -std=c11 -O1 -DSTANDALONE -fprofile-instr-generate -fcoverage-mapping
fuzz: $(addprefix tests/bin/fuzz_,$(FUZZED)) $(addprefix tests/bin/cover_,$(FUZZED)) \
	$(addprefix tests/bin/replay_,$(FUZZED)) ## libFuzzer, FUZZ_S=60 seconds for each program (clang)
	@sh tests/fuzz.sh $(FUZZ_S) $(FUZZED)

has_fuzzer:
	@echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	    $(FUZZ) -x c - -o /dev/null 2>/dev/null || { echo "make fuzz needs clang with libFuzzer" \
	    "(Debian: clang, libclang-rt-dev); FUZZ_CC=clang-19, say, names another"; exit 1; }

tests/bin/fuzz_%: tests/fuzz_%.c $(TEST_PARTS) | tests/bin has_fuzzer
	$(FUZZ) $< -o $@ $(LINK)

# Tracing comparisons would take most of the time where there is much arithmetic.
$(addprefix tests/bin/fuzz_,codec image model stream): \
	FUZZ += -fno-sanitize-coverage=trace-cmp

tests/bin/cover_%: tests/fuzz_%.c $(TEST_PARTS) | tests/bin has_fuzzer
	$(COVER) $< -o $@ $(LINK)

# Quickly built: they run for a second. Without optimization functions that nothing calls want the
# library.
tests/bin/replay_%: tests/fuzz_%.c $(TEST_PARTS) libmegabyte.a | tests/bin
	$(COMPILE) -O0 -DSTANDALONE $< libmegabyte.a -o $@ $(LINK)

format: ## lay out all C files as .clang-format says (needs clang-format 14)
	clang-format -i $(SOURCES)

# -------------------------------------------------------------------------------------- installing
# Manual pages and completions are made from megabyte.h and what --help prints.
PAGES = $(addprefix tools/generated/,mbrun.1 mbconvert.1 megabyte.3)
FUNCTIONS = grep -o 'megabyte_[a-z_]*(' megabyte.h | tr -d '(' | sort -u
HELP = sh tools/packaging/help.sh
docs: $(PAGES) ## manual pages and the shells' completions, in tools/generated

tools/generated/megabyte.3: megabyte.h tools/packaging/header.sh
	@mkdir -p tools/generated
	sh tools/packaging/header.sh >$@.new && mv $@.new $@

tools/generated/%.1: tools/% tools/packaging/help.sh
	@mkdir -p tools/generated
	for form in bash zsh fish man; do \
	    $(HELP) $$form tools/$* "$(RUN)" >tools/generated/$*.$$form || exit 1; \
	done
	mv tools/generated/$*.man $@

INSTALL = install -m 644
TO_LIB = "$(DESTDIR)$(LIBDIR)"
TO_DATA = "$(DESTDIR)$(DATADIR)"
TO_MAN = "$(DESTDIR)$(MANDIR)"
install: all lib shared docs ## into $(DESTDIR)$(PREFIX); see tools/packaging/README.md
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(INCLUDEDIR)" $(TO_LIB)/pkgconfig \
	    $(TO_DATA)/megabyte $(TO_DATA)/doc/megabyte $(TO_MAN)/man1 $(TO_MAN)/man3 \
	    $(addprefix $(TO_DATA)/,$(sort $(dir $(COMPLETIONS))))
	install -m 755 $(TOOLS) "$(DESTDIR)$(BINDIR)"
	$(INSTALL) megabyte.h "$(DESTDIR)$(INCLUDEDIR)"
	$(INSTALL) libmegabyte.a libmegabyte.so.$(VERSION) $(TO_LIB)
	ln -sf libmegabyte.so.$(VERSION) $(TO_LIB)/$(SONAME)
	ln -sf $(SONAME) $(TO_LIB)/libmegabyte.so
	sed 's|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' \
	    tools/packaging/megabyte.pc.in >$(TO_LIB)/pkgconfig/megabyte.pc
	$(if $(strip $(MODELS)),$(INSTALL) $(MODELS) models/README.md $(TO_DATA)/megabyte)
	$(INSTALL) README.md models/FORMAT.md .github/LICENSE $(TO_DATA)/doc/megabyte
	$(INSTALL) $(filter %.1,$(PAGES)) $(TO_MAN)/man1
	$(INSTALL) $(filter %.3,$(PAGES)) $(TO_MAN)/man3
	for name in `$(FUNCTIONS)`; do echo .so man3/megabyte.3 >$(TO_MAN)/man3/$$name.3; done
	for tool in mbrun mbconvert; do \
	    $(INSTALL) tools/generated/$$tool.bash \
	        $(TO_DATA)/bash-completion/completions/$$tool && \
	    $(INSTALL) tools/generated/$$tool.zsh $(TO_DATA)/zsh/site-functions/_$$tool && \
	    $(INSTALL) tools/generated/$$tool.fish \
	        $(TO_DATA)/fish/vendor_completions.d/$$tool.fish || exit 1; \
	done

COMPLETIONS = $(foreach tool,mbrun mbconvert,bash-completion/completions/$(tool) \
	zsh/site-functions/_$(tool) fish/vendor_completions.d/$(tool).fish)
uninstall: ## remove what install put there
	rm -f $(addprefix "$(DESTDIR)$(BINDIR)"/,$(notdir $(TOOLS)))
	rm -f "$(DESTDIR)$(INCLUDEDIR)"/megabyte.h
	rm -f $(addprefix $(TO_LIB)/,libmegabyte.a libmegabyte.so $(SONAME) \
	    libmegabyte.so.$(VERSION) pkgconfig/megabyte.pc)
	rm -f $(addprefix $(TO_MAN)/,man1/mbrun.1 man1/mbconvert.1 man3/megabyte.3) \
	    $(addprefix $(TO_DATA)/,$(COMPLETIONS))
	for name in `$(FUNCTIONS)`; do rm -f $(TO_MAN)/man3/$$name.3; done
	rm -rf $(TO_DATA)/megabyte $(TO_DATA)/doc/megabyte

# The same bytes whenever it is run: the commit's time, no name and time of gzip's.
DIST = megabyte-$(VERSION)
dist: ## megabyte-VERSION.tar.gz, of the last commit
	git archive --format=tar --prefix=$(DIST)/ HEAD | gzip -9n >$(DIST).tar.gz.new
	mv $(DIST).tar.gz.new $(DIST).tar.gz

clean: ## remove what was built
	rm -rf $(TOOLS) $(addsuffix .exe,$(TOOLS)) megabyte.o megabyte.obj libmegabyte.a \
	    libmegabyte.so.* megabyte-*.tar.gz tools/generated $(WEB) \
	    tests/bin tests/tmp

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  \1: /p' Makefile
