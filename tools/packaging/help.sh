#!/bin/sh
# Manual pages and completions, made from what the tools' --help prints, so that they cannot go
# stale: sh tools/packaging/help.sh man|bash|zsh|fish TOOL [RUN], where TOOL is tools/mbrun or
# tools/mbconvert, and RUN what runs it where it was built for another machine (qemu-aarch64).
set -eu
form=$1 tool=$2 run=${3-} name=${2##*/}
version=$(sed -n 's/^#define MEGABYTE_VERSION_STRING "\(.*\)"/\1/p' megabyte.h)
case $name in
mbrun) title="generate, score and compress bytes with MEGABYTE models" ;;
*) title="make a megabyte model file from a checkpoint" ;;
esac

help_of() { "./$tool" "$@" --help; } # mbrun [SUBCOMMAND] --help
[ -z "$run" ] || help_of() { $run "./$tool" "$@" --help; }

# The commands that a subcommand has of its own, instead of options.
nested_of() {
    text=$(help_of "$1")
    if printf '%s\n' "$text" | grep -q '^  \(-[^ ,]*, \|    \)--'; then return; fi
    printf '%s\n' "$text" | sed -n "s/^  $name $1 \([a-z]*\) .*/\1/p"
}

# The help of a subcommand, and the options of its own commands.
all_help_of() {
    help_of "$1"
    for nested in $(nested_of "$1"); do
        help_of "$1" "$nested"
    done | awk '/^  (-[^ ,]+, |    )--[a-z]/ { match($0, /--[^ ]+/)
                    shown = !seen[substr($0, RSTART, RLENGTH)]++ }
                !/^  / { shown = 0 }
                shown'
}

# One record a line, its fields separated by tabs:
#   B sub what it does, in a few words
#   U sub usage    T sub text (before the options)    E sub text (after)
#   O sub letter name argument help    N sub command of its own
records() {
    main=$(help_of)
    subs=$(printf '%s\n' "$main" | sed -n "s/^  $name \([a-z]*\).*/\1/p" | sort -u)
    # in the order of the text
    subs=$(printf '%s\n' "$main" | awk -v known="$subs" -v name="$name" '
        BEGIN { n = split(known, list); for (i = 1; i <= n; i++) is[list[i]] = 1 }
        $1 == name && is[$2] { print $2; is[$2] = 0 }')
    [ -n "$subs" ] || subs=-
    printf '%s\n' "$main" | sed -n "s/^  $name \([a-z]*\)  *\([a-z].*\)/B	\1	\2/p"
    for sub in $subs; do
        [ "$sub" = - ] || nested_of "$sub" | sed "s/^/N	$sub	/"
        if [ "$sub" = - ]; then help_of; else all_help_of "$sub"; fi |
            awk -v sub_="$sub" -v name="$name" '
        function put() {
            if (option != "") print option; option = ""
        }
        NR == 1 {
            usage = $0
            if (!sub(sub_ == "-" ? "^Usage: " name " *" : "^Usage: " name " " sub_ " *", "",
                usage)) {
                printf "U\t%s\t\n", sub_ # its help is that of the tool
                exit
            }
            in_usage = 1
            next
        }
        in_usage && NF { sub(/^ +/, ""); usage = usage " " $0; next }
        in_usage { printf "U\t%s\t%s\n", sub_, usage; in_usage = 0; next }
        /^  (-[^ ,]+, |    )--[a-z]/ {
            put()
            options = 1
            letter = argument = ""
            rest = substr($0, 3)
            if (rest ~ /^-/ && rest !~ /^--/) { letter = rest; sub(/^-/, "", letter)
                sub(/, .*/, "", letter); sub(/^[^,]*, /, "", rest) }
            sub(/^ +/, "", rest)
            match(rest, /^--[^ ]+/)
            long = substr(rest, 3, RLENGTH - 2)
            rest = substr(rest, RLENGTH + 1)
            if (rest ~ /^ [^ ]/) { match(rest, /^ [^ ]+/); argument = substr(rest, 2, RLENGTH - 1)
                rest = substr(rest, RLENGTH + 1) }
            sub(/^ +/, "", rest)
            option = "O\t" sub_ "\t" letter "\t" long "\t" argument "\t" rest
            next
        }
        option != "" && /^                    / { sub(/^ +/, ""); option = option " " $0; next }
        { put(); printf "%s\t%s\t%s\n", options ? "E" : "T", sub_, $0 }
        END { put() }'
    done
}

man() {
    awk -F '\t' -v name="$name" -v title="$title" -v version="$version" '
    function roff(text) {
        gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text)
        if (text ~ /^[.\x27]/) text = "\\&" text
        return text
    }
    function tell(letter, long, argument, help) {
        print ".TP"
        if (letter == "1..9") letter = "1\\fR .. \\fB\\-9"
        print (letter != "" ? "\\fB\\-" letter "\\fR, " : "") "\\fB\\-\\-" roff(long) "\\fR" \
            (argument != "" ? " \\fI" roff(argument) "\\fR" : "")
        print roff(help)
    }
    function paragraphs(kind, s, common,  i, n, lines, blank, begun) {
        n = split(text[kind, s], lines, "\n")
        for (i = 1; i < n; i++) {
            if (common != (of[kind, lines[i]] == n_subs && n_subs > 1) && lines[i] != "") continue
            if (lines[i] == "") { blank = begun; continue }
            if (blank) print ".PP"
            blank = 0; begun = 1
            print roff(lines[i])
            # a line that ends early ends its paragraph
            match(lines[i + 1], /^[^ ]*/)
            if (i < n - 1 && length(lines[i]) + 1 + RLENGTH < 80 && lines[i + 1] != "") print ".br"
        }
    }
    function options(s, common,  i, f) {
        for (i = 1; i <= n_options[s]; i++) {
            if (common != (of["O", option[s, i]] == n_subs && n_subs > 1)) continue
            split(option[s, i], f, "\t")
            tell(f[1], f[2], f[3], f[4])
        }
    }
    $1 == "U" { subs[++n_subs] = $2; usage[$2] = $3 }
    $1 == "T" || $1 == "E" { text[$1, $2] = text[$1, $2] $3 "\n"
        if (!seen[$1, $2, $3]++) of[$1, $3]++ }
    $1 == "O" { o = $3 "\t" $4 "\t" $5 "\t" $6; option[$2, ++n_options[$2]] = o; of["O", o]++ }
    END {
        print ".\\\" Made by tools/packaging/help.sh from " name " --help."
        print ".TH " toupper(name) " 1 \"\" \"megabyte " version "\" \"User Commands\""
        print ".SH NAME\n" name " \\- " title "\n.SH SYNOPSIS\n.nh\n.ad l"
        for (i = 1; i <= n_subs; i++) {
            s = subs[i]
            if (i > 1) print ".br"
            print ".B " name (s == "-" ? "" : " " s) "\n" roff(usage[s])
        }
        print ".hy\n.ad b\n.SH DESCRIPTION"
        if (n_subs == 1) {
            paragraphs("T", "-", 0)
            print ".SH OPTIONS"
            options("-", 0)
            paragraphs("E", "-", 0)
        } else {
            print "A MEGABYTE model is a transformer that predicts bytes. The subcommands:"
            for (i = 1; i <= n_subs; i++) {
                s = subs[i]
                if (usage[s] == "") continue
                print ".SH " toupper(s)
                print ".B " name " " s "\n" roff(usage[s]) "\n.PP"
                paragraphs("T", s, 0)
                options(s, 0)
                paragraphs("E", s, 0)
            }
            print ".SH COMMON OPTIONS\nWhat all subcommands take."
            options(subs[1], 1)
            print ".PP"
            paragraphs("E", subs[1], 1)
        }
        print ".SH SEE ALSO"
        print (name == "mbrun" ? ".BR mbconvert (1),\n" : ".BR mbrun (1),\n") ".BR megabyte (3)"
    }'
}

# What the argument of an option is completed with: files, or nothing.
is_file='$1 == "N" { nested[$2] = nested[$2] " " $3 }
    function is_file(a) { return a ~ /FILE|OUT|MODEL|PATH/ }
    function letters(l, n, a, i) { if (l == "1..9") { for (i = 1; i <= 9; i++) a[i] = i; return 9 }
        if (l == "") return 0; a[1] = l; return 1 }'

bash_() {
    awk -F '\t' -v name="$name" "$is_file"'
    $1 == "U" { subs[++n_subs] = $2 }
    $1 == "O" {
        n = letters($3, 0, l)
        words[$2] = words[$2] " --" $4
        for (i = 1; i <= n; i++) words[$2] = words[$2] " -" l[i]
        if ($5 != "") {
            given = "--" $4 ($3 != "" && $3 != "1..9" ? "|-" $3 : "")
            if (is_file($5)) files[$2] = files[$2] "|" given
            else other[$2] = other[$2] "|" given
        }
    }
    END {
        print "# bash completion of " name ", made by tools/packaging/help.sh from its --help."
        print "_" name "() {"
        print "    local word=${COMP_WORDS[COMP_CWORD]} before= words="
        print "    [ \"$COMP_CWORD\" = 0 ] || before=${COMP_WORDS[COMP_CWORD-1]}"
        print "    COMPREPLY=()"
        if (subs[1] != "-") {
            print "    if [ \"$COMP_CWORD\" = 1 ]; then"
            for (i = 1; i <= n_subs; i++) all = all " " subs[i]
            print "        COMPREPLY=($(compgen -W \"" substr(all, 2) " help --help --version\" " \
                "-- \"$word\"))"
            print "        return\n    fi"
        }
        print "    case ${COMP_WORDS[1]} in"
        for (i = 1; i <= n_subs; i++) {
            s = subs[i]
            print "    " (s == "-" ? "*" : s) ")"
            print "        words=\"" substr(words[s], 2) "\""
            if (nested[s] != "") {
                print "        if [ \"$COMP_CWORD\" = 2 ] && [ \"${word#-}\" = \"$word\" ]; then"
                print "            COMPREPLY=($(compgen -W \"" substr(nested[s], 2) \
                    "\" -- \"$word\"))"
                print "            return\n        fi"
            }
            print "        case $before in"
            if (other[s] != "") print "        " substr(other[s], 2) ") return ;;"
            if (files[s] != "") print "        " substr(files[s], 2) ") words= ;;"
            print "        esac ;;"
        }
        print "    esac"
        print "    case $word in"
        print "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;"
        print "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;"
        print "    esac\n}"
        print "complete -o filenames -F _" name " " name
    }'
}

zsh_() {
    awk -F '\t' -v name="$name" "$is_file"'
    function quoted(text) { gsub(/\x27/, "\x27\\\x27\x27", text); return text }
    function described(text) {
        gsub(/\\/, "\\\\&", text); gsub(/\[/, "\\\\&", text); gsub(/\]/, "\\\\&", text)
        gsub(/:/, "\\\\&", text)
        return quoted("[" text "]")
    }
    $1 == "B" { brief[$2] = $3 }
    $1 == "U" { subs[++n_subs] = $2 }
    $1 == "O" {
        value = $5 == "" ? "" : ":" quoted($5) ":" (is_file($5) ? "_files" : " ")
        spec = described($6)
        if ($3 != "" && $3 != "1..9")
            line = "\x27(-" $3 " --" $4 ")\x27{-" $3 ",--" $4 "}\x27" spec value "\x27"
        else line = "\x27--" $4 spec value "\x27"
        if ($3 == "1..9") line = line " -{1..9}\x27" spec "\x27"
        specs[$2] = specs[$2] " \\\n            " line
    }
    END {
        print "#compdef " name
        print "# Made from " name " --help by tools/packaging/help.sh."
        print "_" name "() {"
        if (subs[1] != "-") {
            for (i = 1; i <= n_subs; i++)
                all = all " \\\n            " "\x27" quoted(subs[i] ":" brief[subs[i]]) "\x27"
            print "    if (( CURRENT == 2 )); then"
            print "        local -a subs=(" all ")"
            print "        _describe subcommand subs"
            print "        compadd -- help --help --version\n        return\n    fi"
            print "    local sub=$words[2]\n    shift words\n    (( CURRENT-- ))"
        } else print "    local sub=-"
        print "    case $sub in"
        for (i = 1; i <= n_subs; i++) {
            s = subs[i]
            if (specs[s] == "") continue
            print "    " s ")"
            if (nested[s] != "")
                print "        if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n" \
                    "            compadd --" nested[s] "\n            return\n        fi"
            print "        _arguments -s" specs[s] " \\"
            print "            \x27*:file:_files\x27 ;;"
        }
        print "    esac\n}\n_" name " \"$@\""
    }'
}

fish_() {
    awk -F '\t' -v name="$name" "$is_file"'
    function quoted(text) { gsub(/[\\\x27]/, "\\\\&", text); return "\x27" text "\x27" }
    BEGIN { print "# Of " name " --help, made by tools/packaging/help.sh." }
    $1 == "B" { brief[$2] = $3 }
    $1 == "U" && $2 != "-" {
        print "complete -c " name " -n __fish_use_subcommand -f -a " $2 " -d " quoted(brief[$2])
    }
    END {
        for (s in nested)
            print "complete -c " name " -n \x27__fish_seen_subcommand_from " s \
                "; and not __fish_seen_subcommand_from" nested[s] "\x27 -f -a \x27" \
                substr(nested[s], 2) "\x27"
    }
    $1 == "O" {
        when = $2 == "-" ? "" : " -n \x27__fish_seen_subcommand_from " $2 "\x27"
        n = letters($3, 0, l)
        line = "complete -c " name when
        if ($3 != "1..9" && n) line = line " -s " l[1]
        print line " -l " $4 ($5 == "" ? "" : is_file($5) ? " -r -F" : " -x") " -d " quoted($6)
        for (i = 1; i <= n && $3 == "1..9"; i++)
            print "complete -c " name when " -s " l[i] " -d " quoted($6)
    }'
}

known=$(records)
printf '%s\n' "$known" | grep -q '^O' || { echo "$tool --help lists no options" >&2; exit 1; }
case $form in
man) printf '%s\n' "$known" | man ;;
bash | zsh | fish) printf '%s\n' "$known" | ${form}_ ;;
*) echo "no such form: $form" >&2 && exit 2 ;;
esac
