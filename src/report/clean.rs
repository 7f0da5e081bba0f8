//! Cleans foreign text before it reaches a terminal. Guests, boxes, servers, captured hosts, tools, file
//! names and the environment are all foreign: a terminal obeys control characters in their text (ECMA-48,
//! xterm's ctlseqs), and OSC 52 alone can fill the clipboard.

use std::{iter::Peekable, path::Path, str::Chars};

/// The longest parameters of a colour that are accepted, in bytes.
const LONGEST_SGR: usize = 48;

/// One thing that a terminal would do.
enum Piece {
    Char(char),
    /// Colours and the like (ECMA-48 §8.3.117), with its introducer.
    Sgr(String),
    /// EL, §8.3.41: 0 erases to the end of the line, 1 to its start, 2 all of it.
    EraseLine(u8),
    Newline,
    Return,
    Back,
}

struct Pieces<'a> {
    chars: Peekable<Chars<'a>>,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str) -> Self {
        Pieces {
            chars: text.chars().peekable(),
        }
    }

    /// Reads what follows CSI: parameters, intermediates, one final character.
    fn csi(&mut self) -> Option<Piece> {
        let mut parameters = String::new();
        let mut private = false;
        loop {
            // A character that cannot be part of a sequence ends it, and is read by itself.
            let c = *self.chars.peek()?;
            match c {
                '0'..='9' | ';' | ':' => parameters.push(c),
                ' '..='?' => private = true,
                '@'..='~' => {
                    self.chars.next();
                    return match c {
                        'm' if !private && is_color(&parameters) => {
                            Some(Piece::Sgr(format!("\u{1b}[{parameters}m")))
                        }
                        'K' if !private => match parameters.as_str() {
                            "" | "0" => Some(Piece::EraseLine(0)),
                            "1" => Some(Piece::EraseLine(1)),
                            "2" => Some(Piece::EraseLine(2)),
                            _ => None,
                        },
                        _ => None,
                    };
                }
                _ => return None,
            }
            self.chars.next();
        }
    }

    /// Skips what follows OSC, DCS, SOS, PM or APC, up to ST or BEL, or to the end of the line: a sequence
    /// without an end hides only its own line.
    fn string(&mut self) {
        while let Some(&c) = self.chars.peek() {
            match c {
                '\u{7}' | '\u{9c}' | '\u{18}' | '\u{1a}' => {
                    self.chars.next();
                    return;
                }
                '\u{1b}' => {
                    let mut ahead = self.chars.clone();
                    ahead.next();
                    if ahead.peek() == Some(&'\\') {
                        ahead.next();
                        self.chars = ahead;
                    }
                    return;
                }
                '\n' => return,
                _ => {
                    self.chars.next();
                }
            }
        }
    }

    fn escape(&mut self) -> Option<Piece> {
        match self.chars.peek()? {
            '[' => {
                self.chars.next();
                return self.csi();
            }
            // k: a title in screen and tmux.
            ']' | 'P' | 'X' | '^' | '_' | 'k' => {
                self.chars.next();
                self.string();
            }
            ' '..='/' => {
                while self.chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
                self.chars.next_if(|c| ('0'..='~').contains(c));
            }
            '0'..='~' => {
                self.chars.next();
            }
            _ => {}
        }
        None
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            let piece = match self.chars.next()? {
                '\u{1b}' => self.escape(),
                '\u{9b}' => self.csi(),
                '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => {
                    self.string();
                    None
                }
                '\n' => Some(Piece::Newline),
                '\r' => Some(Piece::Return),
                '\u{8}' => Some(Piece::Back),
                '\t' => Some(Piece::Char('\t')),
                c if is_unseen(c) => None,
                c => Some(Piece::Char(c)),
            };
            if piece.is_some() {
                return piece;
            }
        }
    }
}

/// Whether a character is a control character (C0, DEL or C1), a line or paragraph separator, or changes
/// the direction of text (Unicode UAX #9), so that text reads differently than it is written.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether these are parameters of colours, weight and the like, without the one that hides text (8).
fn is_color(parameters: &str) -> bool {
    if parameters.len() > LONGEST_SGR {
        return false;
    }
    let mut numbers = parameters.split(';');
    while let Some(number) = numbers.next() {
        match number {
            "8" | "08" => return false,
            // 38;5;N and 38;2;R;G;B: the numbers that follow are a colour.
            "38" | "48" | "58" => match numbers.next() {
                Some("5") => {
                    numbers.next();
                }
                Some("2") => {
                    numbers.nth(2);
                }
                _ => return false,
            },
            _ => {}
        }
    }
    true
}

/// Cleans foreign text within a line of stead's own, such as a name, a release or the text of an error. The
/// result is one line without control characters.
pub fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in Pieces::new(text) {
        match piece {
            Piece::Char('\t') | Piece::Newline | Piece::Return => out.push(' '),
            Piece::Char(c) => out.push(c),
            Piece::Sgr(_) | Piece::EraseLine(_) | Piece::Back => {}
        }
    }
    // A newline at the end leaves no space.
    out.truncate(out.trim_end().len());
    out
}

/// Whether a character is [unseen](is_unseen), or shows nothing: with it, a name reads like another one.
pub fn is_invisible(c: char) -> bool {
    is_unseen(c)
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}'
                | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Cleans a foreign name within a line of stead's own. Characters that are not to be seen are escaped, so that one sees
/// what is there: `web\u{200b}`.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\t' => out.push(' '),
            '\n' => out.push_str("\\n"),
            c if is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A longer word of a foreign text is shortened, in characters. The name of a file has at most 255.
const LONGEST_WORD: usize = 260;
/// A longer message is shortened, in characters.
const LONGEST_MESSAGE: usize = 1_500;

/// Shortens long words in the middle, and then the whole text if it is still long.
pub fn bounded(text: &str) -> String {
    cut(&without_long_words(text, LONGEST_WORD), LONGEST_MESSAGE)
}

/// Shortens words of more than `most` characters in the middle.
pub fn without_long_words(text: &str, most: usize) -> String {
    (text.split_inclusive(char::is_whitespace))
        .map(|word| cut(word, most))
        .collect()
}

/// Replaces the middle of a text of more than `most` characters.
fn cut(text: &str, most: usize) -> String {
    let length = match text.len() > most {
        true => text.chars().count(),
        false => 0,
    };
    if length <= most {
        return text.to_string();
    }
    let (before, after) = (most / 2, most / 3);
    let start = text.chars().take(before);
    let end = text.chars().skip(length - after);
    start.chain("…".chars()).chain(end).collect()
}

/// A path within a line of stead's own. File names are foreign text.
pub trait Shown {
    /// Cleans the path like [`escaped`].
    fn shown(&self) -> String;
}

impl Shown for Path {
    fn shown(&self) -> String {
        escaped(&self.to_string_lossy())
    }
}

/// Cleans a program's output. Each line is as a terminal shows it at the end, after the carriage returns,
/// backspaces and erasures of progress bars. With `color`, colours are kept, and end with their line.
pub fn text(text: &str, color: bool) -> String {
    // Most text has nothing that a terminal acts on.
    if !text.contains(|c| is_unseen(c) && !matches!(c, '\n' | '\t')) {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len());
    let mut line = Line::new(color);
    for piece in Pieces::new(text) {
        match piece {
            Piece::Newline => {
                line.end(&mut out);
                out.push('\n');
            }
            Piece::Char(c) => line.put(c),
            Piece::Sgr(sequence) => line.paint(sequence),
            Piece::EraseLine(which) => line.erase(which),
            Piece::Return => line.at = 0,
            Piece::Back => line.at = line.at.saturating_sub(1),
        }
    }
    line.end(&mut out);
    out
}

/// Cleans a file's text that is shown with marks below its lines: control characters are replaced by as many
/// bytes, so that positions stay the same.
pub fn in_place(text: &str) -> String {
    text.chars()
        .map(|c| match c.len_utf8() {
            _ if c == '\n' || c == '\t' || !is_unseen(c) => c,
            1 if c == '\r' => ' ',
            1 => '?',
            2 => '\u{b7}',
            _ => '\u{fffd}',
        })
        .collect()
}

/// A line of a terminal while it is written.
struct Line {
    /// Characters, each with the colours that start at it.
    cells: Vec<(String, char)>,
    at: usize,
    /// Colours that start at the next character.
    pending: String,
    color: bool,
}

impl Line {
    fn new(color: bool) -> Self {
        Line {
            cells: Vec::new(),
            at: 0,
            pending: String::new(),
            color,
        }
    }

    fn put(&mut self, c: char) {
        let cell = (std::mem::take(&mut self.pending), c);
        match self.cells.get_mut(self.at) {
            Some(before) => *before = cell,
            None => self.cells.push(cell),
        }
        self.at += 1;
    }

    fn paint(&mut self, sequence: String) {
        if self.color {
            // If there are too many in a row, the last ones count.
            if self.pending.len() > LONGEST_SGR {
                self.pending.clear();
            }
            self.pending.push_str(&sequence);
        }
    }

    fn erase(&mut self, which: u8) {
        let blank = |cells: &mut [(String, char)]| cells.fill((String::new(), ' '));
        match which {
            0 => self.cells.truncate(self.at),
            1 => {
                let end = self.cells.len().min(self.at + 1);
                blank(&mut self.cells[..end]);
            }
            _ => blank(&mut self.cells),
        }
    }

    fn end(&mut self, out: &mut String) {
        let mut painted = false;
        for (colors, c) in self.cells.drain(..) {
            if !colors.is_empty() {
                painted = !(colors.ends_with("[0m") || colors.ends_with("[m"));
                out.push_str(&colors);
            }
            out.push(c);
        }
        if painted {
            out.push_str("\u{1b}[0m");
        }
        self.pending.clear();
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hostile text may try: clipboard, title, link, answers, screen, charset, in both encodings.
    const HOSTILE: [&str; 16] = [
        "\u{1b}]52;c;Y3VybCBldmlsfHNo\u{7}",
        "\u{1b}]0;title\u{1b}\\",
        "\u{1b}]8;;http://evil/\u{1b}\\",
        "\u{9d}52;c;Y3Vy\u{9c}",
        "\u{1b}P$q\"p\u{1b}\\",
        "\u{90}$q\"p\u{9c}",
        "\u{1b}[2J\u{1b}[H",
        "\u{9b}2J",
        "\u{1b}[?1049h",
        "\u{1b}[6n",
        "\u{1b}(0",
        "\u{1b}c",
        "\u{1b}_apc\u{1b}\\",
        "\u{7}",
        "\u{202e}\u{2066}\u{200f}",
        "\u{1b}ktitle\u{1b}\\",
    ];

    fn is_clean(text: &str) -> bool {
        !text
            .chars()
            .any(|c| is_unseen(c) && !matches!(c, '\n' | '\t'))
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        for hostile in HOSTILE {
            let given = format!("a{hostile}b");
            assert_eq!(words(&given), "ab", "{given:?}");
            assert_eq!(text(&given, true), "ab", "{given:?}");
            assert_eq!(text(&given, false), "ab", "{given:?}");
            let kept = in_place(&given);
            assert!(is_clean(&kept), "{given:?}");
            assert_eq!(kept.len(), given.len(), "{given:?}");
        }
    }

    #[test]
    fn no_mixture_of_beginnings_and_ends_gets_through() {
        const ALPHABET: [&str; 20] = [
            "\u{1b}", "[", "]", "P", "\\", "\u{7}", "\u{9b}", "\u{9d}", "\u{9c}", "3", ";", "m",
            "K", "\r", "\n", "\u{8}", "x", " ", "?", "\u{202e}",
        ];
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut given = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                given.push_str(ALPHABET[(seed >> 33) as usize % ALPHABET.len()]);
            }
            assert!(is_clean(&words(&given)), "{given:?}");
            assert!(is_clean(&text(&given, false)), "{given:?}");
            let painted = text(&given, true);
            // Cleaning it again changes nothing: only complete colours and visible text are left.
            assert_eq!(text(&painted, true), painted, "{given:?}");
            assert!(is_clean(&text(&painted, false)), "{given:?}");
            let colors = painted.matches('\u{1b}').count();
            assert_eq!(painted.matches("\u{1b}[").count(), colors, "{given:?}");
        }
    }

    #[test]
    fn colors_stay_where_they_may_and_end_with_their_line() {
        let given = "\u{1b}[32mok\u{1b}[0m x\n\u{1b}[1;38;5;8mbold";
        assert_eq!(
            text(given, true),
            "\u{1b}[32mok\u{1b}[0m x\n\u{1b}[1;38;5;8mbold\u{1b}[0m"
        );
        assert_eq!(text(given, false), "ok x\nbold");
        assert_eq!(words(given), "ok x bold");
        // The parameter that hides text is not a colour.
        assert_eq!(text("a\u{1b}[8mb\u{1b}[0;8mc", true), "abc");
        assert_eq!(
            text("a\u{1b}[38;2;1;8;8mb", true),
            "a\u{1b}[38;2;1;8;8mb\u{1b}[0m"
        );
    }

    #[test]
    fn progress_bars_are_their_last_state() {
        assert_eq!(text("  1%\r 50%\r100%\n", false), "100%\n");
        assert_eq!(
            text("Reading... 5%\rReading... Done\r\n", false),
            "Reading... Done\n"
        );
        assert_eq!(text("long line\r\u{1b}[Kshort", false), "short");
        assert_eq!(text("long line\u{1b}[2K\rshort", false).trim_end(), "short");
        assert_eq!(text("12%\u{8}\u{8}\u{8}99%", false), "99%");
        assert_eq!(text("|\u{8}/\u{8}-\u{8}done", true), "done");
    }

    #[test]
    fn an_end_that_never_comes_hides_no_more_than_its_line() {
        assert_eq!(text("a\u{1b}]0;b\nc", false), "a\nc");
        assert_eq!(text("cut \u{1b}[", false), "cut ");
        assert_eq!(words("two\nlines\r\n"), "two lines");
    }

    #[test]
    fn a_path_is_one_line() {
        for hostile in HOSTILE {
            let path = Path::new("/home/a").join(format!("b{hostile}\nerror: c"));
            assert!(path.shown().starts_with("/home/a/b"), "{}", path.shown());
            assert!(!path.shown().contains(is_unseen), "{}", path.shown());
        }
        assert_eq!(Path::new("/a b/ü").shown(), "/a b/ü");
        assert_eq!(
            Path::new("/a\u{200b}b/\u{202e}c\n\u{1b}[2J").shown(),
            "/a\\u{200b}b/\\u{202e}c\\n\\u{1b}[2J"
        );
    }

    #[test]
    fn long_text_is_shortened_in_the_middle() {
        let name = format!("begin{}end", "é".repeat(100_000));
        let shown = bounded(&format!("there is no {name} here"));
        assert!(shown.starts_with("there is no beginéé"), "{shown}");
        assert!(shown.ends_with("ééend here"), "{shown}");
        assert!(shown.chars().count() < 300, "{shown}");
        assert!(bounded(&"word ".repeat(100_000)).len() < 1_500);
        assert_eq!(bounded("a b  c"), "a b  c");
    }

    #[test]
    fn honest_text_is_as_it_was() {
        for honest in [
            "",
            "web  ready\n",
            "grün → 日本語 \u{1f680}\ttab\n\n",
            "שלום",
        ] {
            assert_eq!(text(honest, false), honest);
            assert_eq!(in_place(honest), honest);
        }
        assert_eq!(words("a b"), "a b");
    }
}
