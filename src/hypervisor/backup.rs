//! Copying the disk of a machine that runs, as it is at one moment, while it goes on running. The
//! `virt` crate does not wrap libvirt's backups, so there is unsafe code here
//! (libvirt.org/formatbackup.html).

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    ptr,
    time::{Duration, Instant},
};

use quick_xml::escape::escape;
use virt::{error::Error, sys};

use super::{domain::Domain, error::HypervisorError};

/// How a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copying {
    /// In bytes.
    Running {
        done: u64,
        total: u64,
    },
    Done,
    Failed {
        message: String,
    },
}

/// How long libvirt may take to end a copy that is given up.
const ABORT_LIMIT: Duration = Duration::from_secs(20);

impl Domain {
    /// Begins to copy what is on the disk at this moment into the new qcow2 file `target`, which
    /// libvirt makes: whole, without a backing file. The guest goes on; what it writes meanwhile
    /// does not get into the copy. The copy ends by itself, whatever happens to stead.
    pub fn begin_copy(&self, target: &Path) -> Result<(), HypervisorError> {
        let doing = || format!("copying the disk of domain {}", self.name());
        let xml = CString::new(backup_xml(target)).map_err(|_| HypervisorError::Libvirt {
            doing: doing(),
            message: "the path of the copy has a NUL in it".into(),
            code: 0,
            hint: None,
        })?;
        // SAFETY: the domain is valid as long as self, the XML is a C string, and no checkpoint
        // (NULL) is what libvirt documents for a full copy.
        let begun =
            unsafe { sys::virDomainBackupBegin(self.as_ptr(), xml.as_ptr(), ptr::null(), 0) };
        if begun < 0 {
            return Err(HypervisorError::libvirt(doing(), &Error::last_error()));
        }
        Ok(())
    }

    /// How the copy that was begun last stands.
    pub fn copying(&self) -> Result<Copying, HypervisorError> {
        let now = self.job(0)?;
        if now.kind != sys::VIR_DOMAIN_JOB_NONE {
            return Ok(Copying::Running {
                done: now.processed,
                total: now.total,
            });
        }
        let ended = self.job(sys::VIR_DOMAIN_JOB_STATS_COMPLETED)?;
        Ok(match ended.kind {
            sys::VIR_DOMAIN_JOB_COMPLETED => Copying::Done,
            _ => Copying::Failed {
                message: ended
                    .message
                    .unwrap_or_else(|| "libvirt does not say why".into()),
            },
        })
    }

    /// Gives up a copy into `target`, if one goes on; another backup is left alone.
    pub fn abort_copy(&self, target: &Path) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + ABORT_LIMIT;
        let mut asked = false;
        while self.copies_into(target) && Instant::now() < deadline {
            if !asked {
                // SAFETY: the domain is valid as long as self.
                asked = unsafe { sys::virDomainAbortJob(self.as_ptr()) } >= 0;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if self.copies_into(target) {
            return Err(HypervisorError::libvirt(
                format!("giving up the copy of the disk of domain {}", self.name()),
                &Error::last_error(),
            ));
        }
        Ok(())
    }

    fn copies_into(&self, target: &Path) -> bool {
        // SAFETY: the domain is valid as long as self.
        let xml = unsafe { sys::virDomainBackupGetXMLDesc(self.as_ptr(), 0) };
        if xml.is_null() {
            return false;
        }
        // SAFETY: libvirt returned a C string, which is the caller's to free.
        let text = unsafe { CStr::from_ptr(xml) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: as above; libvirt documents free() for it.
        unsafe { nix::libc::free(xml.cast()) };
        text.contains(&target_element(target))
    }

    fn job(&self, flags: u32) -> Result<Job, HypervisorError> {
        let mut kind: c_int = 0;
        let mut parameters: sys::virTypedParameterPtr = ptr::null_mut();
        let mut count: c_int = 0;
        // SAFETY: the domain is valid as long as self; libvirt fills in the three.
        let got = unsafe {
            sys::virDomainGetJobStats(self.as_ptr(), &mut kind, &mut parameters, &mut count, flags)
        };
        if got < 0 {
            return Err(HypervisorError::libvirt(
                format!("looking how the copy of the disk of {} stands", self.name()),
                &Error::last_error(),
            ));
        }
        let number = |name: &CStr| {
            let mut value = 0;
            // SAFETY: `parameters` holds `count` parameters until they are freed below; a name
            // that is not among them leaves the value alone.
            unsafe {
                sys::virTypedParamsGetULLong(parameters, count, name.as_ptr(), &mut value);
            }
            value
        };
        let mut text: *const c_char = ptr::null();
        // SAFETY: as for the numbers; the text belongs to the parameters.
        unsafe {
            sys::virTypedParamsGetString(parameters, count, c"errmsg".as_ptr(), &mut text);
        }
        let message = (!text.is_null()).then(|| {
            // SAFETY: a C string within the parameters, which are not freed yet.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        });
        let job = Job {
            kind: u32::try_from(kind).unwrap_or(sys::VIR_DOMAIN_JOB_NONE),
            total: number(c"disk_total"),
            processed: number(c"disk_processed"),
            message,
        };
        // SAFETY: allocated by libvirt for the caller to free so; NULL is allowed.
        unsafe { sys::virTypedParamsFree(parameters, count) };
        Ok(job)
    }
}

struct Job {
    kind: sys::virDomainJobType,
    /// In bytes.
    total: u64,
    /// In bytes.
    processed: u64,
    message: Option<String>,
}

fn target_element(target: &Path) -> String {
    format!("<target file='{}'/>", escape(&*target.to_string_lossy()))
}

/// The machine's disk is `vda` (domain_xml.rs); a disk that is not named, as a seed's, is left out.
fn backup_xml(target: &Path) -> String {
    format!(
        "<domainbackup mode='push'><disks>\
         <disk name='vda' type='file'><driver type='qcow2'/>{}</disk>\
         </disks></domainbackup>",
        target_element(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        let xml = backup_xml(Path::new("/data/it's <one> & only.qcow2"));
        assert!(
            xml.contains("<target file='/data/it&apos;s &lt;one&gt; &amp; only.qcow2'/>"),
            "{xml}"
        );
    }
}
