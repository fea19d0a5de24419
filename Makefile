# Needs gcc (or clang) and GNU make. `make help` lists the targets.
CC ?= cc
CFLAGS ?= -O2
PREFIX ?= /usr/local
AR ?= ar

# Added to the user's flags, never in place of them.
COMPILE = $(CC) -std=c11 -Wall -Wextra $(CPPFLAGS) $(CFLAGS) -pthread
LINK = $(LDFLAGS) -lm $(LDLIBS)

SOURCES = megabyte.h megabyte.c $(wildcard tools/*.[ch] tests/*.[ch] tests/*/*.[ch])
TOOLS = tools/mbrun tools/mbconvert
MODELS = $(wildcard models/*.mb)

# Tests that #include a .c file to see inside; all others are linked with megabyte.o.
WHOLE = tests/bin/test_reference tests/bin/test_hostile tests/bin/test_convert tests/bin/test_long \
	tests/bin/test_gaps
LINKED = $(filter-out $(WHOLE),$(patsubst tests/%.c,tests/bin/%,$(wildcard tests/test_*.c)))
TEST_PARTS = $(wildcard tests/*.h) megabyte.c megabyte.h $(MBCONVERT) tools/families.c $(HEADERS)
SCRIPTS = tests/same_bits.sh tests/exports.sh tests/synopsis.sh tests/sections.sh # and cli_*.sh, after all

.PHONY: all lib demo test bench format install clean help

# ------------------------------------------------------------------------------------------------ building
all: $(TOOLS) ## the tools (the default)

lib: libmegabyte.a ## libmegabyte.a; most programs just compile megabyte.c

megabyte.o: megabyte.c megabyte.h
	$(COMPILE) -c megabyte.c -o $@

libmegabyte.a: megabyte.o
	$(AR) rcs $@ megabyte.o

HEADERS = megabyte.h $(wildcard tools/*.h)
SHARED = tools/common.c tools/options.c tools/output.c
MBRUN = tools/mbrun.c tools/mbcommon.c tools/compress.c tools/input.c tools/list.c tools/against.c \
	tools/mbbench.c tools/peak.c $(SHARED)
tools/mbrun: $(MBRUN) $(HEADERS) megabyte.o
	$(COMPILE) $(MBRUN) megabyte.o -o $@ $(LINK)

MBCONVERT = tools/mbconvert.c tools/json.c tools/safetensors.c tools/pytorch.c tools/config.c \
	tools/names.c $(SHARED)
tools/mbconvert: $(MBCONVERT) tools/families.c $(HEADERS) megabyte.c # includes megabyte.c
	$(COMPILE) $(MBCONVERT) -o $@ $(LINK)

# ------------------------------------------------------------------------------------------------ using
demo: tools/mbrun ## write 400 bytes with the shipped model
	tools/mbrun generate -m models/text.mb -p "It was a dark and stormy night" -n 400 --seed 1
	@echo

bench: tools/mbrun ## speed, beside this machine's limits
	tools/mbrun bench

# ------------------------------------------------------------------------------------------------ testing
tests/bin:
	mkdir -p $@

$(WHOLE): tests/bin/%: tests/%.c $(TEST_PARTS) | tests/bin
	$(COMPILE) $< -o $@ $(LINK)

$(LINKED): tests/bin/%: tests/%.c $(TEST_PARTS) megabyte.o | tests/bin
	$(COMPILE) $< megabyte.o -o $@ $(LINK)

test: ## build everything and run the tests
	@$(MAKE) -j2 all $(WHOLE) $(LINKED)
	@$(MAKE) -s -j2 $(addprefix run-,$(notdir $(LINKED) $(WHOLE) $(SCRIPTS)))
	@for script in tests/cli_*.sh; do CC="$(CC)" CFLAGS="$(CFLAGS)" sh $$script || exit 1; done
	@echo "All tests OK"

# One test's output in one piece, though two run at a time.
run-%:
	@mkdir -p tests/tmp; log=tests/tmp/$*.log; case $* in *.sh) set -- sh tests/$*;; *) set -- tests/bin/$*;; esac; \
	CC="$(CC)" CFLAGS="$(CFLAGS)" "$$@" >$$log 2>&1 && result=0 || result=1; echo "$*"; cat $$log; exit $$result

format: ## lay out all C files as .clang-format says (needs clang-format 14)
	clang-format -i $(SOURCES)

# ------------------------------------------------------------------------------------------------ installing
install: all lib ## into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib
	install -d $(DESTDIR)$(PREFIX)/share/megabyte
	install -m 755 $(TOOLS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 megabyte.h $(DESTDIR)$(PREFIX)/include
	install -m 644 libmegabyte.a $(DESTDIR)$(PREFIX)/lib
	install -m 644 $(MODELS) $(DESTDIR)$(PREFIX)/share/megabyte

clean: ## remove what was built
	rm -rf $(TOOLS) megabyte.o libmegabyte.a tests/bin tests/tmp

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  \1: /p' Makefile
