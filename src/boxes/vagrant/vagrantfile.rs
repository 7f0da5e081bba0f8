//! The few settings of a box's Vagrantfile that matter here. It is Ruby and is never run: settings
//! count where they are plain literals on a line of their own, which is how boxes have them.

/// What a Vagrantfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `config.ssh.username`
    pub login_user: Option<String>,
    /// `libvirt.loader`: firmware other than QEMU's BIOS.
    pub loader: Option<String>,
}

impl Settings {
    pub fn parse(text: &str) -> Self {
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

/// A string in quotes with nothing to be worked out in it.
fn literal(value: &str) -> Option<String> {
    let value = value.trim();
    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let (text, rest) = value[1..].split_once(quote)?;
    let rest = rest.trim();
    let plain = !text.contains(['\\', '#', '\n']) && !text.is_empty();
    (plain && (rest.is_empty() || rest.starts_with('#'))).then(|| text.to_string())
}
