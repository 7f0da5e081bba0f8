//! Installs a kernel in a guest: reads what the guest has, decides what is left to do, and writes the
//! bootloader's settings. All of it is pure; the script makes the changes.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::host::shell::shell_quote;

/// provisioners/guest/install-kernel, for standard input of [`install_command`].
pub const INSTALL_SCRIPT: &str = include_str!("../../provisioners/guest/install-kernel");

/// The folder where the script looks for packages. Only root can create it.
const FOLDER: &str = "/var/cache/stead-kernel";

/// Returns the command that runs a script from standard input as root. The script is read whole before it
/// starts, so that no program that it runs can read the rest of it.
pub fn install_command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(shell_quote).collect();
    let shell = format!(
        "sh -c \"$script\" install-kernel {} </dev/null",
        words.join(" ")
    );
    format!("script=$(cat); [ \"$(id -u)\" = 0 ] || exec sudo -n {shell}; exec {shell}")
}

/// Returns the command that stores a package from standard input, if its checksum is right.
pub fn receive_command(sha256: &str, family: &str) -> String {
    let file = format!("{FOLDER}/{sha256}.{family}");
    let shell = shell_quote(&format!(
        "set -e; umask 022; mkdir -p {FOLDER}; cat >{file}.part; \
         echo '{sha256}  {file}.part' | sha256sum -c - >/dev/null; mv -f {file}.part {file}"
    ));
    format!("[ \"$(id -u)\" = 0 ] || exec sudo -n sh -c {shell}; exec sh -c {shell}")
}

/// How the guest installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    Deb,
    Rpm,
}

/// How the guest's bootloader is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// update-grub, with a file in /etc/default/grub.d.
    Grub,
    /// A grub.cfg that no program in the guest generates.
    Menu,
    /// grubby, which handles entries of the boot loader specification.
    Grubby,
}

/// The state of the guest, as the script's `look` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootSetup {
    /// An id that changes with every boot.
    pub boot: String,
    /// The output of `uname -r`.
    pub running: String,
    pub tools: Option<Tools>,
    pub loader: Option<Loader>,
    /// Names and versions of completely installed packages.
    pub packages: BTreeSet<(String, String)>,
    /// Digests of the package files in the script's folder.
    pub files: BTreeSet<String>,
    /// The content of grub.cfg.
    pub menu: String,
    /// GRUB's paths of the kernel and its initrd.
    pub image: Option<String>,
    pub initrd: Option<String>,
    /// The bootloader's settings that stead wrote last.
    pub state: Option<String>,
}

/// Parses the script's output. Other lines are ignored.
pub fn parse_boot_setup(output: &str) -> BootSetup {
    let mut setup = BootSetup::default();
    let text = |word: Option<&str>| {
        let bytes = BASE64.decode(word.unwrap_or_default()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    for line in output.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("stead-kernel") {
            continue;
        }
        match words.next() {
            Some("boot") => setup.boot = words.next().unwrap_or_default().into(),
            Some("running") => setup.running = words.next().unwrap_or_default().into(),
            Some("tools") => {
                setup.tools = match words.next() {
                    Some("deb") => Some(Tools::Deb),
                    Some("rpm") => Some(Tools::Rpm),
                    _ => None,
                }
            }
            Some("loader") => {
                setup.loader = match words.next() {
                    Some("grub") => Some(Loader::Grub),
                    Some("grubby") => Some(Loader::Grubby),
                    Some("menu") => Some(Loader::Menu),
                    _ => None,
                }
            }
            Some("package") => {
                if let (Some(name), Some("ii"), Some(version)) =
                    (words.next(), words.next(), words.next())
                {
                    setup.packages.insert((name.into(), version.into()));
                }
            }
            Some("file") => setup.files.extend(words.next().map(str::to_string)),
            Some("menu") => setup.menu = text(words.next()),
            Some("image") => setup.image = words.next().map(str::to_string),
            Some("initrd") => setup.initrd = words.next().map(str::to_string),
            Some("state") => setup.state = Some(text(words.next())),
            _ => {}
        }
    }
    setup
}

/// The kernel that the guest should have.
#[derive(Clone, Debug)]
pub struct KernelToInstall<'a> {
    /// What `uname -r` will print.
    pub release: &'a str,
    /// Names and versions.
    pub packages: BTreeSet<(String, String)>,
    /// Added to the guest's own options, or in their place.
    pub cmdline: &'a str,
    pub replaces: bool,
}

/// What is left to do; each step includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Todo {
    Nothing,
    Boot,
    /// Configure the bootloader.
    Set,
    Install,
}

impl KernelToInstall<'_> {
    pub fn todo(&self, setup: &BootSetup) -> Todo {
        let state = match setup.loader {
            Some(Loader::Menu) => own_part(&setup.menu).1,
            _ => setup.state.as_deref(),
        };
        let said = state
            .zip(self.state(setup))
            .filter(|(has, wanted)| without_boot(has) == without_boot(wanted))
            .map(|(has, _)| boot_of(has));
        // The boot in which the bootloader was completely configured: this one, or an earlier one.
        let finished = said.filter(|boot| *boot != "unfinished");
        let since = if finished == Some(setup.boot.as_str()) {
            Todo::Boot
        } else {
            Todo::Nothing
        };
        if setup.running == self.release {
            let nothing_to_say = self.cmdline.is_empty() && !self.replaces;
            return match finished {
                Some(_) => since,
                None if state.is_none() && nothing_to_say => Todo::Nothing,
                None => Todo::Set,
            };
        }
        if !self.packages.is_subset(&setup.packages) {
            Todo::Install
        } else if finished.is_some() && since == Todo::Boot {
            Todo::Boot
        } else {
            Todo::Set
        }
    }

    /// Returns the file with the bootloader's settings. `None`: the bootloader has no entry for the kernel.
    pub fn state(&self, setup: &BootSetup) -> Option<String> {
        match setup.loader? {
            Loader::Grub => Some(self.grub_file(&grub_entry(&setup.menu, self.release)?)),
            Loader::Menu => self.own_entry(setup),
            Loader::Grubby => Some(self.grubby_file()),
        }
    }

    /// Returns a grub.cfg with these settings in it.
    pub fn menu(setup: &BootSetup, state: &str) -> String {
        format!("{}\n{state}", own_part(&setup.menu).0.trim_end())
    }

    /// Returns an entry for the kernel: a copy of the first entry that loads a kernel, with this kernel in
    /// its place.
    fn own_entry(&self, setup: &BootSetup) -> Option<String> {
        let image = setup.image.as_deref()?;
        let mut lines = own_part(&setup.menu).0.lines().map(str::trim);
        let is = |line: &str, word: &str| line.split_whitespace().next() == Some(word);
        let mut entry: Vec<&str> = Vec::new();
        let kernel = loop {
            let line = lines.next()?;
            if is(line, "menuentry") {
                entry.clear();
            } else if is(line, "linux") {
                break line;
            } else {
                entry.push(line);
            }
        };
        let own = kernel.split_whitespace().skip(2);
        let own: Vec<&str> = own
            .filter(|word| {
                let key = word.split('=').next().unwrap_or(word);
                !self.replaces || ["root", "rootfstype", "rootflags", "ro", "rw"].contains(&key)
            })
            .collect();
        let options = for_grub(&self.options());
        let kernel = format!("linux {image} {} {options}", own.join(" "));
        let initrd = setup.initrd.as_ref().map(|path| format!("initrd {path}"));
        let body = (entry.into_iter().chain([kernel.trim_end()])).chain(initrd.as_deref());
        let body: Vec<String> = body.map(|line| format!("    {line}\n")).collect();
        Some(format!(
            "{BEGIN}{HEAD}menuentry \"Linux {}\" --id stead {{\n{}}}\nset default=stead\n{END}",
            self.release,
            body.concat()
        ))
    }

    fn grub_file(&self, entry: &str) -> String {
        let options = in_double_quotes(&for_grub(&self.options()));
        let lines = match (self.replaces, options.is_empty()) {
            (true, _) => {
                format!("GRUB_CMDLINE_LINUX=\"\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"{options}\"\n")
            }
            (false, true) => String::new(),
            (false, false) => {
                format!("GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {options}\"\n")
            }
        };
        format!(
            "{HEAD}GRUB_DEFAULT=\"{}\"\n{lines}",
            in_double_quotes(entry)
        )
    }

    fn grubby_file(&self) -> String {
        format!(
            "{HEAD}release={}\nreplaces={}\noptions={}\n",
            self.release,
            if self.replaces { "yes" } else { "no" },
            self.options()
        )
    }

    /// Returns the kernel's options. Options that replace the guest's own still get the console, which
    /// stead shows.
    pub fn options(&self) -> String {
        if self.replaces {
            format!("{} console=ttyS0", self.cmdline).trim().to_string()
        } else {
            self.cmdline.to_string()
        }
    }
}

const HEAD: &str =
    "# Written by stead: the kernel that the machine's Machinefile names.\n# boot: @boot@\n";
/// The lines around stead's part of a grub.cfg.
const BEGIN: &str = "### stead begins ###\n";
const END: &str = "### stead ends ###\n";
const BOOT: &str = "# boot: ";

fn without_boot(text: &str) -> Vec<&str> {
    let lines = text.trim_end().lines();
    lines.filter(|line| !line.starts_with(BOOT)).collect()
}

/// Returns the boot in which the settings were written, or `unfinished`.
fn boot_of(text: &str) -> &str {
    (text.lines().find_map(|line| line.strip_prefix(BOOT))).unwrap_or("unfinished")
}

/// Splits a grub.cfg into the part before stead's, and stead's, which comes last.
fn own_part(menu: &str) -> (&str, Option<&str>) {
    match menu.find(BEGIN) {
        Some(at) => (&menu[..at], Some(&menu[at..])),
        None => (menu, None),
    }
}

/// Returns the id of a release's entry in a grub.cfg, with those of the menus that it is in:
/// `gnulinux-advanced-UUID>gnulinux-RELEASE-advanced-UUID`. Never the rescue entry.
fn grub_entry(menu: &str, release: &str) -> Option<String> {
    let wanted = format!("gnulinux-{release}-advanced-");
    // For each open brace: the id of its submenu, or `None` if it is something else.
    let mut open: Vec<Option<&str>> = Vec::new();
    for line in menu.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with("menuentry ")
            && let Some(id) = id_of(line).filter(|id| id.starts_with(&wanted))
        {
            let path: Vec<&str> = open.iter().copied().flatten().chain([id]).collect();
            return Some(path.join(">"));
        }
        if line.ends_with('{') {
            open.push(line.starts_with("submenu ").then(|| id_of(line)).flatten());
        } else if line == "}" {
            open.pop();
        }
    }
    None
}

/// Returns the id in `menuentry 'title' … $menuentry_id_option 'ID' {`.
fn id_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("$menuentry_id_option '")?;
    rest.split_once('\'').map(|(id, _)| id)
}

/// Escapes options for grub.cfg, which is a script. Double quotes are kept, because they hold values with
/// spaces together.
fn for_grub(options: &str) -> String {
    let mut quoted = false;
    let mut text = String::new();
    for c in options.chars() {
        quoted ^= c == '"';
        let special = if quoted {
            "\\$".contains(c)
        } else {
            "\\$'`;|&<>{}#".contains(c)
        };
        if special {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Escapes text for double quotes in /etc/default/grub, which a shell reads.
fn in_double_quotes(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        if "\\\"$`".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const MENU: &str = r#"
function savedefault {
  if [ -z "${boot_once}" ]; then
    save_env saved_entry
  fi
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-11-22' {
	linux	/boot/vmlinuz-6.12.95+deb12-cloud-amd64 root=PARTUUID=1 ro
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-11-22' {
	menuentry 'Debian GNU/Linux, with Linux 6.12.95+deb12-cloud-amd64' --class debian $menuentry_id_option 'gnulinux-6.12.95+deb12-cloud-amd64-advanced-11-22' {
		linux	/boot/vmlinuz-6.12.95+deb12-cloud-amd64
	}
	menuentry 'Debian GNU/Linux, with Linux 6.12.95+deb12-cloud-amd64 (recovery mode)' --class debian $menuentry_id_option 'gnulinux-6.12.95+deb12-cloud-amd64-recovery-11-22' {
		linux	/boot/vmlinuz-6.12.95+deb12-cloud-amd64 single
	}
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-47-cloud-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-47-cloud-amd64-advanced-11-22' {
		linux	/boot/vmlinuz-6.1.0-47-cloud-amd64
	}
}
menuentry 'After' $menuentry_id_option 'gnulinux-5.10-advanced-11-22' {
}
"#;

    #[test]
    fn entries_are_found_with_the_menus_that_they_are_in() {
        assert_eq!(
            grub_entry(MENU, "6.1.0-47-cloud-amd64").as_deref(),
            Some("gnulinux-advanced-11-22>gnulinux-6.1.0-47-cloud-amd64-advanced-11-22")
        );
        assert_eq!(
            grub_entry(MENU, "5.10").as_deref(),
            Some("gnulinux-5.10-advanced-11-22")
        );
        assert_eq!(grub_entry(MENU, "6.1.0-47"), None);
    }

    fn wanted<'a>(cmdline: &'a str, replaces: bool) -> KernelToInstall<'a> {
        KernelToInstall {
            release: "6.1.0-47-cloud-amd64",
            packages: BTreeSet::from([("linux-image".to_string(), "6.1.1".to_string())]),
            cmdline,
            replaces,
        }
    }

    fn setup(running: &str, state: Option<String>) -> BootSetup {
        BootSetup {
            boot: "b2".into(),
            running: running.into(),
            tools: Some(Tools::Deb),
            loader: Some(Loader::Grub),
            packages: wanted("", false).packages,
            files: BTreeSet::new(),
            menu: MENU.into(),
            image: None,
            initrd: None,
            state,
        }
    }

    #[test]
    fn what_the_bootloader_is_told() {
        let setup = setup("", None);
        let said = [
            wanted("", false),
            wanted(
                "mitigations=off memmap=4G$16G dyndbg=\"file a.c +p; x\"",
                false,
            ),
            wanted("a;b", true),
        ]
        .map(|it| it.state(&setup).unwrap());
        insta::assert_snapshot!(said.join("\n"));
        let grubby = BootSetup {
            loader: Some(Loader::Grubby),
            ..setup
        };
        insta::assert_snapshot!(wanted("a=1 b", true).state(&grubby).unwrap());
    }

    #[test]
    fn a_menu_that_is_written_by_hand_gets_an_entry() {
        let menu = "# by hand\nset timeout=0\nmenuentry \"Debian\" {\n    search --label --set=root root\n    linux /vmlinuz root=/dev/vda2 ro console=ttyS0\n    initrd /initrd.img\n}\n";
        let setup = BootSetup {
            loader: Some(Loader::Menu),
            menu: menu.into(),
            image: Some("/boot/vmlinuz-6.1.0-47-cloud-amd64".into()),
            initrd: Some("/boot/initrd.img-6.1.0-47-cloud-amd64".into()),
            ..setup("6.1.0-47-cloud-amd64", None)
        };
        let first = wanted("quiet", false);
        let told = KernelToInstall::menu(&setup, &first.state(&setup).unwrap());
        insta::assert_snapshot!(told);
        let told = |boot| BootSetup {
            menu: told.replace("@boot@", boot),
            ..setup.clone()
        };
        assert_eq!(first.todo(&told("b1")), Todo::Nothing);
        assert_eq!(first.todo(&told("b2")), Todo::Boot);
        let other = wanted("a=1", true);
        assert_eq!(other.todo(&told("b1")), Todo::Set);
        // New settings replace the old ones.
        let again = KernelToInstall::menu(&told("b1"), &other.state(&told("b1")).unwrap());
        assert_eq!(
            again,
            KernelToInstall::menu(&setup, &other.state(&setup).unwrap())
        );
        assert!(
            again.contains("cloud-amd64 root=/dev/vda2 ro a=1 console=ttyS0\n"),
            "{again}"
        );
    }

    #[test]
    fn no_more_is_done_than_is_left() {
        let here = "6.1.0-47-cloud-amd64";
        let told = |cmdline, boot: &str| {
            let text = wanted(cmdline, false).state(&setup("", None)).unwrap();
            Some(text.replace("@boot@", boot))
        };
        let todo = |cmdline, running, state| wanted(cmdline, false).todo(&setup(running, state));
        // The kernel runs.
        assert_eq!(todo("", here, None), Todo::Nothing);
        assert_eq!(todo("a", here, None), Todo::Set);
        assert_eq!(todo("a", here, told("a", "b1")), Todo::Nothing);
        assert_eq!(todo("a", here, told("a", "b2")), Todo::Boot);
        assert_eq!(todo("a", here, told("a", "unfinished")), Todo::Set);
        assert_eq!(todo("b", here, told("a", "b1")), Todo::Set);
        assert_eq!(todo("", here, told("a", "b1")), Todo::Set);
        // Another kernel runs.
        assert_eq!(todo("a", "5", None), Todo::Set);
        assert_eq!(todo("a", "5", told("a", "b2")), Todo::Boot);
        assert_eq!(todo("a", "5", told("a", "b1")), Todo::Set);
        let mut bare = setup("5", told("a", "b2"));
        bare.packages.clear();
        assert_eq!(wanted("a", false).todo(&bare), Todo::Install);
    }

    #[test]
    fn a_look_is_read_among_what_a_login_prints() {
        let found = parse_boot_setup(
            "Welcome!\r\nstead-kernel boot b1\r\nstead-kernel running 6.1\nstead-kernel tools deb\n\
             stead-kernel loader grub\nstead-kernel package linux-base ii  4.9\n\
             stead-kernel package linux-image iF  6.1\nstead-kernel file abc\n\
             stead-kernel menu bWVudQo=\nstead-kernel image /boot/vmlinuz-6.1\n\
             stead-kernel state c3RhdGUK\nstead-kernel\n",
        );
        assert_eq!(
            found,
            BootSetup {
                boot: "b1".into(),
                running: "6.1".into(),
                tools: Some(Tools::Deb),
                loader: Some(Loader::Grub),
                packages: BTreeSet::from([("linux-base".to_string(), "4.9".to_string())]),
                files: BTreeSet::from(["abc".to_string()]),
                menu: "menu\n".into(),
                image: Some("/boot/vmlinuz-6.1".into()),
                initrd: None,
                state: Some("state\n".into()),
            }
        );
    }
}
