#!/bin/sh
# Each section of megabyte.c uses only what stands above it: what a section defines at file scope
# (functions, types, macros, enumerators) must not be named in an earlier one. Sections 21 and 22
# are compiled inside section 6 and so count as standing there. Run from the repository.
#   sections.sh             checks
#   sections.sh --matrix    prints, for each section, the sections that it uses
# Public functions are declared in megabyte.h, so C itself does not check their order.
set -u
awk -v matrix="${1-}" '
function code(line,    out, i) { # without comments and strings
    out = ""
    while (line != "") {
        if (in_comment) {
            i = index(line, "*/")
            if (!i) return out
            line = substr(line, i + 2)
            in_comment = 0
        }
        if (match(line, /"([^"\\]|\\.)*"|\/\/|\/\*|\047([^\047\\]|\\.)\047/)) {
            out = out substr(line, 1, RSTART - 1) " "
            i = substr(line, RSTART, 2)
            line = substr(line, RSTART + RLENGTH)
            if (i == "//") return out
            if (i == "/*") in_comment = 1
        } else {
            return out line
        }
    }
    return out
}
function define(name) { if (!(name in home)) home[name] = section }
function definitions(c) {
    if (c ~ /^#define /) { split(c, word, /[ (]/); if (section < 21) define(word[2]) }
    if (depth == 0 && match(c, /^(typedef )?(struct|enum) [a-z_0-9]+ \{/)) {
        split(substr(c, RSTART, RLENGTH), word, " ")
        define((word[1] == "typedef" ? word[2] " " word[3] : word[1] " " word[2]))
    }
    if (depth == 0 && c ~ /^enum/) in_enum = 1
    if (in_enum) {
        t = c
        while (match(t, /[A-Z][A-Z_0-9]+/)) {
            if (substr(t, 1, RSTART - 1) !~ /=[^,]*$/) define(substr(t, RSTART, RLENGTH))
            t = substr(t, RSTART + RLENGTH)
        }
        if (c ~ /}/) in_enum = 0
    }
    # a function: its name is the last one before the first parenthesis of a line at column 0
    if (depth == 0 && c ~ /^[a-zA-Z]/ && c !~ /^(struct|enum|typedef)[^(]*\{/ && c ~ /\(/) {
        t = substr(c, 1, index(c, "(") - 1)
        if (match(t, /[A-Za-z_0-9]+ *$/)) {
            name = substr(t, RSTART, RLENGTH)
            sub(/ +$/, "", name)
            if (name != "_Static_assert" && name != "__attribute__" && section < 21) define(name)
        }
    }
}
/^\/\* =+ [0-9]+ / {
    match($0, /= [0-9]+ /)
    section = substr($0, RSTART + 2, RLENGTH - 3) + 0
    title[section] = $0
    gsub(/^\/\* =+ | \*\/$/, "", title[section])
    if (section != last + 1) { print "section " section " follows section " last; bad = 1 }
    last = section
}
section {
    c = code($0)
    line_at[NR] = c
    section_at[NR] = section
    definitions(c)
    t = c
    if (c !~ /^#/ && !continued) depth += gsub(/\{/, "", t) - gsub(/\}/, "", t)
    continued = $0 ~ /\\$/ # of a macro
}
END {
    for (i = 1; i <= NR; i++) {
        if (!(i in line_at)) continue
        from = section_at[i]
        if (from >= 21) from = 6.5
        t = line_at[i]
        while (match(t, /[A-Za-z_][A-Za-z_0-9]*/)) {
            name = substr(t, RSTART, RLENGTH)
            before = RSTART > 1 ? substr(t, RSTART - 1, 1) : ""
            t = substr(t, RSTART + RLENGTH)
            if (name == "struct" || name == "enum") {
                if (!match(t, /^ [a-z_0-9]+/)) continue
                name = name substr(t, RSTART, RLENGTH)
                t = substr(t, RSTART + RLENGTH)
            } else if (before == "." || before == ">" || (name !~ /[A-Z]/ && t !~ /^\(/)) {
                continue # a field, or a variable named like a function
            }
            if (!(name in home)) continue
            uses[section_at[i], home[name]]++
            if (home[name] > from) {
                printf "megabyte.c:%d: section %s uses %s of section %s\n", i, section_at[i], name,
                    home[name]
                bad = 1
            }
        }
    }
    if (last < 22) { print "only " last " sections were found"; bad = 1 }
    for (n in home) count++
    if (count < 450) { print "only " count " definitions were found"; bad = 1 }
    if (matrix == "--matrix")
        for (i = 1; i <= last; i++) {
            printf "%-26s uses", title[i]
            for (k = 1; k <= last; k++) if (k != i && uses[i, k]) printf " %d", k
            print ""
        }
    if (!bad && matrix == "")
        print "sections: " count " definitions in " last " sections, none used above its own ... ok"
    exit bad
}' megabyte.c
