//! Finds who owns a project's files, and who can write them.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{Gid, Group, Uid, User};

/// The user who runs stead.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    uid: u32,
    /// The user who became root by sudo.
    sudo: Option<u32>,
}

impl Caller {
    pub fn find() -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        let sudo = (uid == 0)
            .then(|| std::env::var("SUDO_UID").ok()?.parse().ok())
            .flatten();
        Caller { uid, sudo }
    }

    /// Whether files of this user are as safe as the caller's own.
    fn is(self, uid: u32) -> bool {
        uid == self.uid || uid == 0 || self.sudo == Some(uid)
    }
}

/// Another user who can write a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    Owner(u32),
    Group(u32),
    Everybody,
}

impl Stranger {
    /// Describes it, as after a file's name: `belongs to mallory (uid 1001)`.
    pub fn words(&self) -> String {
        match self {
            Stranger::Owner(uid) => match User::from_uid(Uid::from_raw(*uid)) {
                Ok(Some(user)) => format!("belongs to {} (uid {uid})", user.name),
                _ => format!("belongs to uid {uid}"),
            },
            Stranger::Group(gid) => match Group::from_gid(Gid::from_raw(*gid)) {
                Ok(Some(group)) => {
                    format!("can be written by the group {} (gid {gid})", group.name)
                }
                _ => format!("can be written by gid {gid}"),
            },
            Stranger::Everybody => "can be written by everybody on this computer".into(),
        }
    }
}

/// Returns who else can write to a file or a folder. For a symlink, the owner of the symlink counts, too.
///
/// # Errors
/// If it cannot be inspected.
pub fn stranger(path: &Path, me: Caller) -> io::Result<Option<Stranger>> {
    let link = fs::symlink_metadata(path)?;
    if !me.is(link.uid()) {
        return Ok(Some(Stranger::Owner(link.uid())));
    }
    let metadata = fs::metadata(path)?;
    if !me.is(metadata.uid()) {
        return Ok(Some(Stranger::Owner(metadata.uid())));
    }
    let mode = metadata.permissions().mode();
    // With the sticky bit, as in /tmp, everybody may add files, but nobody may replace the files of others.
    if metadata.is_dir() && mode & 0o1000 != 0 {
        return Ok(None);
    }
    if mode & 0o002 != 0 {
        return Ok(Some(Stranger::Everybody));
    }
    if mode & 0o020 != 0 && !is_private(metadata.gid(), metadata.uid()) {
        return Ok(Some(Stranger::Group(metadata.gid())));
    }
    Ok(None)
}

/// Whether a group has only one user: either it has the name of the user, as most distributions set it up, or it has no
/// other member.
fn is_private(gid: u32, uid: u32) -> bool {
    let (Ok(Some(group)), Ok(Some(user))) = (
        Group::from_gid(Gid::from_raw(gid)),
        User::from_uid(Uid::from_raw(uid)),
    ) else {
        return false;
    };
    let others = fs::read_to_string("/etc/passwd").is_ok_and(|text| has_others(&text, gid, uid));
    alone(&group.name, &group.mem, &user.name) && !others
}

fn alone(group: &str, members: &[String], user: &str) -> bool {
    members.iter().all(|member| member == user) && (group == user || !members.is_empty())
}

/// Whether it is the primary group of another user (passwd(5)). Such a user is not listed as a member of the group.
fn has_others(passwd: &str, gid: u32, uid: u32) -> bool {
    passwd.lines().any(|line| {
        let mut fields = line.split(':').skip(2);
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
        let (user, group) = (number(), number());
        group == Some(gid) && user.is_some_and(|user| user != uid && user != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_group_is_one_user_alone() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(alone("anna", &[], "anna"));
        assert!(alone("anna", &names(&["anna"]), "anna"));
        assert!(alone("work", &names(&["anna"]), "anna"));
        assert!(!alone("anna", &names(&["bob"]), "anna"));
        assert!(!alone("work", &names(&["anna", "bob"]), "anna"));
        // If all users have the same primary group, it lists no member.
        assert!(!alone("users", &[], "anna"));
        let passwd = "root:x:0:0:::\nanna:x:1000:1000:::\nbob:x:1001:1000:::\n";
        assert!(has_others(passwd, 1000, 1000));
        assert!(!has_others(passwd, 1001, 1000));
        assert!(!has_others(
            &passwd.replace("1001:1000", "1001:1001"),
            1000,
            1000
        ));
    }

    #[test]
    fn modes_say_who_else_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, "").unwrap();
        let me = Caller::find();
        let with = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            stranger(path, me).unwrap()
        };
        assert_eq!(with(&file, 0o644), None);
        assert_eq!(with(&file, 0o666), Some(Stranger::Everybody));
        assert_eq!(with(folder.path(), 0o777), Some(Stranger::Everybody));
        assert_eq!(with(folder.path(), 0o1777), None);
        let nobody = Caller {
            uid: 4_000_000,
            sudo: None,
        };
        let uid = nix::unistd::geteuid().as_raw();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let expected = (uid != 0).then_some(Stranger::Owner(uid));
        assert_eq!(stranger(&file, nobody).unwrap(), expected);
        let by_sudo = Caller {
            uid: 0,
            sudo: Some(uid),
        };
        assert_eq!(stranger(&file, by_sudo).unwrap(), None);
    }
}
