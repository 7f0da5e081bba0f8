//! Cleans the disk of a copy, so that it can become a box.

use crate::host::shell::shell_quote;

/// provisioners/guest/stead-clean, for standard input of [`clean_command`].
pub const CLEAN_SCRIPT: &str = include_str!("../../provisioners/guest/stead-clean");

/// The script's exit code when the box's kernel has lost its modules.
pub const KERNEL_GONE: i32 = 3;

/// Returns the command that runs a script from standard input as root. The script is read whole before it
/// starts, so that no program that it runs can read the rest of it. `user` is the box's login user,
/// `public_key` the line of the key that stead logs in with, `kernel` the release that the box boots if it
/// is not the disk's own, `let_in` the line of a key that the box must accept.
pub fn clean_command(
    user: &str,
    public_key: &str,
    kernel: Option<&str>,
    let_in: Option<&str>,
) -> String {
    let key = public_key.split_whitespace().nth(1).unwrap_or_default();
    let shell = format!(
        "sh -c \"$script\" stead-clean {} {} {} {}",
        shell_quote(user),
        shell_quote(key),
        shell_quote(kernel.unwrap_or_default()),
        shell_quote(let_in.unwrap_or_default())
    );
    format!("script=$(cat); [ \"$(id -u)\" = 0 ] || exec sudo -n {shell}; exec {shell}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_told_what_to_keep() {
        let command = clean_command(
            "dev",
            "ssh-ed25519 AAAA/+= stead client of x\n",
            Some("6.1"),
            Some("ssh-rsa AAAAB3"),
        );
        let words = r#"sh -c "$script" stead-clean dev AAAA/+= 6.1 'ssh-rsa AAAAB3'"#;
        assert_eq!(
            command,
            format!("script=$(cat); [ \"$(id -u)\" = 0 ] || exec sudo -n {words}; exec {words}")
        );
    }
}
