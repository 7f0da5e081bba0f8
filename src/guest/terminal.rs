//! The name of the user's terminal, as guests know it.

/// What Debian's ncurses-base has, which every system has too.
const KNOWN: [&str; 18] = [
    "ansi",
    "dumb",
    "linux",
    "rxvt",
    "rxvt-unicode",
    "rxvt-unicode-256color",
    "screen",
    "screen-256color",
    "sun",
    "tmux",
    "tmux-256color",
    "vt100",
    "vt102",
    "vt220",
    "vt52",
    "xterm",
    "xterm-256color",
    "xterm-color",
];

/// Returns the terminal's name for guests, if it is not `name`. A guest without the description of a newer terminal
/// (kitty, ghostty, foot, alacritty) does not know how to draw on it, and those draw like xterm.
pub fn terminal_name(name: &str) -> Option<&'static str> {
    match name {
        "" => None,
        name if KNOWN.contains(&name) => None,
        _ => Some("xterm-256color"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_knows_the_terminal() {
        assert_eq!(terminal_name("tmux-256color"), None);
        for newer in [
            "xterm-kitty",
            "xterm-ghostty",
            "foot",
            "alacritty",
            "wezterm",
        ] {
            assert_eq!(terminal_name(newer), Some("xterm-256color"));
        }
    }
}
