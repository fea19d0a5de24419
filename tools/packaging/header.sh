#!/bin/sh
# megabyte(3), made from the comments and declarations of megabyte.h, so that it cannot go stale:
# sh tools/packaging/header.sh >megabyte.3
set -eu
version=$(sed -n 's/^#define MEGABYTE_VERSION_STRING "\(.*\)"/\1/p' megabyte.h)
awk -v version="$version" '
function roff(text) {
    gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text)
    if (text ~ /^[.\x27]/) text = "\\&" text
    return text
}
function mode(new) { # "", "code" or "item"
    if (new == now) return
    if (now == "code") print ".EE"
    if (new == "code") print ".PP\n.EX"
    if (new == "" && now != "") print ".PP"
    now = new
}
function prose(line, indent, gap) { # one line of a comment
    sub(/ *$/, "", line)
    match(line, /^ */)
    indent = RLENGTH
    line = substr(line, indent + 1)
    if (line == "") {
        if (now == "code" && in_program) print ""
        else { mode(""); print ".PP" }
        return
    }
    if (line ~ /^[A-Z][A-Z ,]*[A-Z]( \(.*)?$/ && indent < 3) {
        mode(""); print ".SS " roff(line); in_program = line ~ /^SYNOPSIS/; return
    }
    if (line ~ /^(Returns|Lifetime|Memory|Cost|Sliding|Threads): /) {
        mode("")
        gap = index(line, ":")
        print ".PP\n.I " substr(line, 1, gap) "\n" roff(substr(line, gap + 2))
        return
    }
    gap = match(line, /[^ ]   *[^ ]/)
    if (!in_program && indent >= 3 && gap && gap < 24 && substr(line, gap + 3) !~ /[^ ]    *[^ ]/) {
        mode("item")
        item_indent = indent
        print ".TP\n.B " roff(substr(line, 1, gap))
        line = substr(line, gap + 1); sub(/^ */, "", line); print roff(line)
    } else if (now == "item" && indent > item_indent) print roff(line)
    else if (now == "item" && indent == item_indent && line ~ /^MEGABYTE_/) {
        gap = index(line, " ")
        print ".TP\n.B " roff(substr(line, 1, gap - 1)) "\n" roff(substr(line, gap + 1))
    } else if (in_program || indent >= 5 && (line ~ /[;{}]$/ || line ~ /^cc / || line ~ /    /)) {
        mode("code")
        printf "%*s%s\n", indent - 5, "", roff(line)
    } else { mode(""); print roff(line) }
}
BEGIN {
    print ".\\\" Made by tools/packaging/header.sh from megabyte.h."
    print ".TH MEGABYTE 3 \"\" \"megabyte " version "\" \"Library Functions\""
    print ".SH NAME"
}
NR == 1 {
    sub(/^\/\* megabyte.h - /, ""); sub(/ Version.*/, ""); sub(/\.$/, "")
    print "megabyte \\- " roff($0)
    print ".SH SYNOPSIS\n.B #include <megabyte.h>\n.PP\ncc app.c \\-lmegabyte \\-lm"
    print ".SH DESCRIPTION"
    in_comment = 1
    next
}
/SPDX-License/ || (/^#ifndef MEGABYTE_H/) || /^#(endif|define MEGABYTE_H$)/ { next }
/__cplusplus/ { skip = 3 }
skip > 0 { skip--; next }
/^#include/ || /MEGABYTE_API$/ { next }
/^\/\* MIT License/ { exit }
/^\/\* -----/ { # a section
    mode("")
    gsub(/[-*\/]/, ""); gsub(/^ */, ""); gsub(/ *$/, "")
    print ".SH " toupper($0)
    next
}
!in_comment && /^\/\*/ {
    mode("")
    print ".PP"
    in_comment = 1
    sub(/^\/\*/, "  ")
    if (sub(/ *\*\/$/, "")) in_comment = 0
    prose(substr($0, 3))
    next
}
in_comment {
    ended = sub(/ *\*\/ *$/, "")
    sub(/^ \*/, "")
    prose($0)
    if (ended) { in_comment = 0; in_program = 0; mode("") }
    next
}
!NF { mode(""); next }
{
    mode("code")
    if (sub(/^MEGABYTE_API /, "")) shift = 1
    else if ($0 ~ /^[^ ]/) shift = 0
    else if (shift) sub(/^             /, "")
    print roff($0)
}
END { mode(""); print ".SH SEE ALSO\n.BR mbrun (1),\n.BR mbconvert (1)" }
' megabyte.h
