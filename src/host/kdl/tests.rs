//! Mistakes of syntax: one message for each, with what to write instead.

use super::*;

#[test]
fn what_nests_without_end_is_an_error_and_no_overflow() {
    for text in [
        "a { ".repeat(100_000),
        format!("{}{}", "a { ".repeat(40), "}".repeat(40)),
        "/*".repeat(100_000),
        format!("{}{}", "/*".repeat(40), "*/".repeat(40)),
        format!("a #\"{{{{\"# {{{}", "b {".repeat(40)),
    ] {
        let mistakes = parse(&text).unwrap_err();
        assert_eq!(
            mistakes.first.message,
            "this nests more than 32 levels deep"
        );
        assert_eq!(mistakes.others, []);
    }
}

#[test]
fn braces_in_strings_and_comments_nest_nothing() {
    let many = "{".repeat(100);
    for text in [
        format!("a \"{many}\""),
        format!("a \"\\\"{many}\""),
        format!("a #\"{many}\"\"#"),
        format!("a ##\"\"\"\n{many}\"#\n\"\"\"##"),
        format!("a \"\"\"\n{many} \\\"\"\" {many}\n\"\"\""),
        format!("a // {many}\nb"),
        format!("/* {many} /* */ {many} */ a"),
        "a { b }; ".repeat(100),
    ] {
        assert!(parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn what_has_no_end_nests_nothing() {
    for text in ["a \"{", "a #\"{", "a \"\\", "/* {", "a #", "\"", "}"] {
        let mistakes = parse(text).unwrap_err();
        assert!(!mistakes.first.message.contains("nests"), "{text}");
        assert_eq!(mistakes.others, [], "{text}");
    }
}

/// What a person sees of the mistakes in a text.
fn explained(text: &str) -> String {
    let mistakes = match parse(text) {
        Ok(_) => panic!("no mistake is found in: {text}"),
        Err(mistakes) => mistakes,
    };
    let mut explained = String::new();
    for mistake in mistakes.all() {
        let line = mistake.line(text);
        let marked = &text[mistake.span.clone()];
        let Mistake {
            message,
            help,
            label,
            ..
        } = &mistake;
        explained.push_str(&format!(
            "{line}: {message}\n   {marked:?} {label}\n   help: {help}\n"
        ));
    }
    explained
}

macro_rules! explained {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), explained($text));
        }
    )*};
}

explained! {
    assigned: r##"project = "shop"
machine "web" {
    box = "debian-12"
    cpus=2
    memory = 2GiB
    internet = true
    labels = { a = 1 }
    exclude = [".git", 'target']
    kernel = x y
}
machine = "db" {
    box: debian-12; cpus: 2
    "hostname": "x"
    sync:
    box:debian/12
}
"##;
    properties: r##"sync "src" to: "/srv"
sync "src" to:"/srv"
sync "src", to="/srv"
sync "src" to=/srv
sync "src" => "/srv"
sync "src" to==1
sync "src" to=>"x"
sync "src" delete=false watch=yes
sync "src" delete=#False
exclude ["a", "b"]
exclude a, b
exclude 1, 2
exclude "a", 2
vars a= 1 b=
"##;
    words: r##"box debian/12
box https://example.org/x.img
box ./disk.img
box C:\disk.img
box ${env.BOX}
box /srv/${env.BOX}/x
box {{ item }}
exclude src/*
exclude target/**/*.o
box f(x)
box (x)
box x)
box a// comment
* x */
internet true
internet null
"##;
    numbers: r##"memory 2GiB
cpus 50%
forward 8080:80
address 10.0.0.0/24
x .5
x 1.
x 0xzz
x 99999999999999999999999999999999999999999999
8080 to=80
#true
"##;
    comments: r##"# a comment
# over two lines
box "x" # of a line
box "y" /
/ one slash
cpus 2 #no space
"##;
    unclosed_comment: r##"box "x"
/* cpus 2
memory "1GiB"
"##;
    quotes: r##"box “debian 12”
box 'debian 12'
box `debian`
box „debian“
box "a"b
box "a""b"
box"a"
box "a" "say "hi" now"
"##;
    unclosed: r##"machine "web" {
    box "debian-12
    cpus 2
}
"##;
    unclosed_typographic: r##"box "debian-12”
"##;
    unopened: r##"box debian-12"
"##;
    unclosed_lines: r##"shell inline="
  echo
"
"##;
    escapes: r##"box "C:\disk\new" "\u{zz}"
box "\u12"
box #"C:\disk"#
"##;
    old_raw: r##"shell inline=r#"echo "hi""#
cmdline r"a\b"
"##;
    unclosed_raw: r##"cmdline #"a"
cpus 2
"##;
    here_document: r##"shell inline=<<EOF
  echo }
EOF
cpus = 2
"##;
    block_text: r##"shell inline=|
  echo }
"##;
    one_line: r##"shell inline="""echo hi"""
"##;
    indented: r##"shell inline="""
    echo one
  echo two
    """
"##;
    closed_late: r##"shell inline="""
    echo """
"##;
    open_lines: r##"shell inline="""
    echo
"##;
    missing_brace: r##"machine "a" {
    box "x"
    sync "src" to="/srv" {
        exclude "x"
}
machine "b" {
    box "x"
}
"##;
    missing_last: r##"machine "a" {
    box "x"

machine "b" {
    box "x"
}
"##;
    missing_inline: r##"machine "a" { box "x"
machine "b" { box "x"; }
"##;
    surplus_brace: r##"machine "a" {
    sync "x" {
    }
    }
    cpus 2
}
"##;
    surplus_last: r##"machine "a" {
    cpus 2
}
}
"##;
    own_line: r##"machine "web"
{
    box "x"
}
{
}
"##;
    one_after_another: r##"machine "a" { cpus 2; } machine "b" {
}
machine "c" {
},
machine "d" {
} {
}
machine "e" {
} # end
machine "f" { cpus 2;; }
; cpus 2
- cpus
"##;
    commented_out: r##"machine "a" /-
box "x" /-
"##;
    commented_out_too_much: r##"/-a { /-b { /-c { /-d { /-e { f; }; }; }; }; }"##;
    hidden_control: "box \"a\u{7}b\"\n";
    hidden_mark: "box \"x\"\n\u{feff}cpus 2\n";
    hidden_in_comment: "box \"x\" // \u{202e}\n";
    hidden_in_word: "box\u{200b} \"x\"\ncpus\u{ad} 2\n";
    conflict: r##"box "x"
<<<<<<< HEAD
cpus 2
=======
cpus 3
>>>>>>> other
"##;
}

#[test]
fn another_language_is_one_mistake() {
    let explained: String = [
        "# -*- mode: ruby -*-\nVagrant.configure(\"2\") do |config|\n  config.vm.box = \"debian/bookworm64\"\nend\n",
        "services:\n  web:\n    image: x\n    ports: [\"8080:80\"]\n",
        "---\nmachines:\n  - name: web\n    box: debian-12\n",
        "box: debian-12\n",
        "#cloud-config\npackages: [curl]\n",
        "title = \"x\"\n[machine]\nbox = \"x\"\n",
        "[[machine]]\nbox = \"x\"\n",
        "{\n  \"machine\": { \"box\": \"x\" }\n}\n",
        "[{\"box\": \"x\"}]\n",
        "terraform {\n  required_version = \">= 1\"\n}\nresource \"x\" \"web\" {\n  name = \"web\"\n}\n",
        "#!/bin/sh\nset -e\nvirt-install --name=x \"$@\"\n",
        "FROM debian:12\nRUN echo 'a\n",
        "<!DOCTYPE html>\n<html></html>\n",
        "<domain type=\"kvm\">\n</domain>\n",
        "b\0o\0x\0 \0x\0\n\0",
        "\u{1}\u{2}\u{3}\u{4}abc",
    ]
    .map(explained)
    .concat();
    insta::assert_snapshot!(explained);
}

/// A line of another language among those of KDL is a mistake of that line.
#[test]
fn a_line_of_another_language_is_not_a_file_of_it() {
    for text in [
        "project \"x\"\nbox: debian\n",
        "project \"x\"\n[machine]\n",
        "project \"x\"\nbox = 1\n",
        "machine \"x\" {\n    box: debian\n}\n",
        "data {\n    x 1\n}\nbox \"\n",
    ] {
        let mistakes = parse(text).unwrap_err();
        assert_eq!(mistakes.first.language, None, "{text}");
        assert_eq!(mistakes.others, [], "{text}");
    }
}

#[test]
fn kdl_is_read() {
    for text in [
        "",
        "\u{feff}a 1\r\nb 2\r\n",
        "a\t1;b\u{a0}2",
        "(t)a (t)1 b=(t)2",
        "a \\ // comment\n  1 \\\n  2",
        "a 1 /-2 /-b=3 /-{ c; } { d; } // e",
        "/-a { b; }\nc /* { */ 1",
        "a -1 +.x - .y 0x1F 1_0.5e-3 #-inf #null",
        "\"a b\" \"\\u{e9}\\n\\s\\\n  x\" #\"\\d\"# ##\"\"#\"##",
        "a \"\"\"\n    x\n\n      \"y\"\n    \"\"\"\nb #\"\"\"\n  \\\n  \"\"\"#",
        "a{b{c}}\nd {}; e {} // f\ng { h; /-i\n}",
        "a \"it's “so”\" don't e=mc² http-x y:z a,b x% \u{85}b",
    ] {
        if let Err(mistakes) = parse(text) {
            panic!("{text}: {:?}", mistakes.first);
        }
    }
}

/// One mistake each, wherever it is: the text without a character, and with another one.
#[test]
fn a_character_that_is_wrong_is_one_mistake() {
    let text = r##"// A project.
project "shop"
machine "web" count=2 {
    box "debian/12" // here
    sync "src" to="/srv" delete=#false { exclude ".git" "*.o"; }
    provision "a" {
        shell privileged=#true inline="""
            echo "{hi}" # now
            """
    }
    /* ready { } */
    kernel { cmdline #"a\b"#; }
    /-cpus 2
}
"##;
    assert!(parse(text).is_ok());
    let mut wrong = 0;
    for (at, c) in text.char_indices() {
        let (before, after) = (&text[..at], &text[at + c.len_utf8()..]);
        let others = [
            "", "\"", "#", "{", "}", "=", "/", "\\", "\n", ";", "(", "'", "“", "\0", "x", "1",
        ];
        for other in others {
            for changed in [
                format!("{before}{other}{after}"),
                format!("{before}{other}{c}{after}"),
            ] {
                let Err(mistakes) = parse(&changed) else {
                    continue;
                };
                wrong += 1;
                assert!(mistakes.others.is_empty(), "{changed}\n{mistakes:#?}");
                assert!(
                    changed.get(mistakes.first.span.clone()).is_some(),
                    "{changed}"
                );
                assert!(
                    mistakes.first.language.is_none(),
                    "{changed}\n{mistakes:#?}"
                );
            }
        }
    }
    assert!(wrong > 1_000);
}

/// Each of these took the parser the square or the cube of its length, or ended the process.
#[test]
fn what_is_hostile_is_read_within_bounds() {
    for (text, is_right) in [
        (format!("/*{}*/ a", " * / ".repeat(50_000)), true),
        (format!("{}{}", "a /-{ ".repeat(30), "}".repeat(30)), false),
        (
            format!("{}{}", "x\n/-a { ".repeat(30), "}".repeat(30)),
            false,
        ),
        ("a #\"\"\"\n".repeat(50_000), false),
        ("a #\" ".repeat(50_000), false),
        ("#".repeat(500_000), false),
        (";".repeat(500_000), false),
        ("}".repeat(500_000), false),
        ("a=\n".repeat(100_000), false),
        ("a “ ".repeat(100_000), false),
        ("\\u{".repeat(100_000), false),
        (format!("a \"{}", "\\u{".repeat(100_000)), false),
        (format!("a {}", "#\"x\"# ".repeat(20_000)), true),
        (format!("a {}", "<<E ".repeat(100_000)), false),
        (format!("a {}", "r#\"".repeat(100_000)), false),
    ] {
        assert_eq!(parse(&text).is_ok(), is_right, "{}", &text[..20]);
    }
}

#[test]
fn more_mistakes_than_anybody_reads_are_not_reported() {
    let mistakes = parse(&"project \"x\"\nbox = 1\n".repeat(1_000)).unwrap_err();
    assert_eq!(mistakes.all().count(), MOST_MISTAKES);
}

#[test]
fn comments_stay_as_they_are() {
    let text = "/** a * b / /* c */ d **/ a /*/ x */ 1 // *\n";
    let document = parse(text).unwrap();
    assert_eq!(text_of(&document), text);
}
