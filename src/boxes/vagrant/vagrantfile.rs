//! Reads the few settings of a box's Vagrantfile that matter here. A Vagrantfile is Ruby and is never run:
//! a setting counts if it is a plain literal on its own line, as it usually is in boxes.

/// Settings of a Vagrantfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `config.ssh.username`
    pub login_user: Option<String>,
    /// `libvirt.loader`: firmware for UEFI.
    pub loader: Option<String>,
}

impl Settings {
    pub(crate) fn parse(text: &str) -> Self {
        let mut settings = Settings::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            // Whatever the block's variable is called: `config.ssh.username`, `c.ssh.username`.
            let name = name.trim();
            let Some(value) = literal(value) else {
                continue;
            };
            let setting = |ending: &str| {
                name.strip_suffix(ending).is_some_and(|variable| {
                    variable.strip_suffix('.').is_some_and(|variable| {
                        !variable.is_empty()
                            && variable
                                .chars()
                                .all(|c| c.is_ascii_alphanumeric() || c == '_')
                    })
                })
            };
            if setting("ssh.username") {
                settings.login_user = Some(value);
            } else if setting("loader") {
                settings.loader = Some(value);
            }
        }
        settings
    }
}

/// Returns the text of a quoted string that needs no evaluation.
fn literal(value: &str) -> Option<String> {
    let value = value.trim();
    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let (text, rest) = value[1..].split_once(quote)?;
    let rest = rest.trim();
    let plain = !text.contains(['\\', '#', '\n']) && !text.is_empty();
    (plain && (rest.is_empty() || rest.starts_with('#'))).then(|| text.to_string())
}
