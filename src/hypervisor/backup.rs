//! Copies the disk of a running machine as it is at one moment, while the machine keeps running. The `virt` crate
//! does not wrap libvirt's backups, so there is unsafe code here (libvirt.org/formatbackup.html).

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    ptr,
    time::{Duration, Instant},
};

use quick_xml::escape::escape;
use virt::{error::Error, sys};

use super::{domain::Domain, error::HypervisorError};

/// The state of a copy.
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

/// How long libvirt may take to cancel a copy.
const ABORT_LIMIT: Duration = Duration::from_secs(20);

impl Domain {
    /// Starts to copy the disk, as it is at this moment, into the new qcow2 file `target`. libvirt makes the file,
    /// without a backing file. The guest keeps running; what it writes meanwhile does not get into the copy. The
    /// copy goes on even if stead ends.
    ///
    /// # Errors
    /// If libvirt refuses.
    pub fn begin_copy(&self, target: &Path) -> Result<(), HypervisorError> {
        let doing = || format!("copying the disk of domain {}", self.name());
        let xml = CString::new(backup_xml(target)).map_err(|_| HypervisorError::Libvirt {
            doing: doing(),
            message: "the path of the copy contains a NUL byte".into(),
            code: 0,
            hint: None,
        })?;
        tracing::debug!("libvirt: {}", doing());
        // SAFETY: the domain is valid as long as self, the XML is a C string, and libvirt documents NULL as the
        // checkpoint for a full copy.
        let begun =
            unsafe { sys::virDomainBackupBegin(self.as_ptr(), xml.as_ptr(), ptr::null(), 0) };
        if begun < 0 {
            return Err(HypervisorError::libvirt(doing(), &Error::last_error()));
        }
        Ok(())
    }

    /// Returns the state of the copy that was started last.
    ///
    /// # Errors
    /// If libvirt does not answer.
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
                    .unwrap_or_else(|| "libvirt gives no reason".into()),
            },
        })
    }

    /// Cancels the copy into `target`, if one is running. Other backups are left alone.
    ///
    /// # Errors
    /// If the copy is still running after 20 s.
    pub fn abort_copy(&self, target: &Path) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + ABORT_LIMIT;
        let mut asked = false;
        while self.copies_into(target) && Instant::now() < deadline {
            if !asked {
                tracing::debug!("libvirt: ending the job of domain {}", self.name());
                // SAFETY: the domain is valid as long as self.
                asked = unsafe { sys::virDomainAbortJob(self.as_ptr()) } >= 0;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if self.copies_into(target) {
            return Err(HypervisorError::libvirt(
                format!("cancelling the copy of the disk of domain {}", self.name()),
                &Error::last_error(),
            ));
        }
        Ok(())
    }

    fn copies_into(&self, target: &Path) -> bool {
        tracing::debug!("libvirt: reading the copy of domain {}", self.name());
        // SAFETY: the domain is valid as long as self.
        let xml = unsafe { sys::virDomainBackupGetXMLDesc(self.as_ptr(), 0) };
        if xml.is_null() {
            return false;
        }
        // SAFETY: libvirt returned a C string, which the caller must free.
        let text = unsafe { CStr::from_ptr(xml) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: as above; libvirt documents that free() is right for it.
        unsafe { nix::libc::free(xml.cast()) };
        text.contains(&target_element(target))
    }

    fn job(&self, flags: u32) -> Result<CopyJob, HypervisorError> {
        tracing::debug!("libvirt: reading the job of domain {}", self.name());
        let mut kind: c_int = 0;
        let mut parameters: sys::virTypedParameterPtr = ptr::null_mut();
        let mut count: c_int = 0;
        // SAFETY: the domain is valid as long as self; libvirt writes to the three variables.
        let got = unsafe {
            sys::virDomainGetJobStats(self.as_ptr(), &mut kind, &mut parameters, &mut count, flags)
        };
        if got < 0 {
            return Err(HypervisorError::libvirt(
                format!("checking the copy of the disk of domain {}", self.name()),
                &Error::last_error(),
            ));
        }
        let number = |name: &CStr| {
            let mut value = 0;
            // SAFETY: `parameters` holds `count` parameters until they are freed below; an unknown name leaves
            // the value unchanged.
            unsafe {
                sys::virTypedParamsGetULLong(parameters, count, name.as_ptr(), &mut value);
            }
            value
        };
        let mut text: *const c_char = ptr::null();
        // SAFETY: as for the numbers; the text is part of the parameters.
        unsafe {
            sys::virTypedParamsGetString(parameters, count, c"errmsg".as_ptr(), &mut text);
        }
        let message = (!text.is_null()).then(|| {
            // SAFETY: this is a C string in the parameters, which are not freed yet.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        });
        let job = CopyJob {
            kind: u32::try_from(kind).unwrap_or(sys::VIR_DOMAIN_JOB_NONE),
            total: number(c"disk_total"),
            processed: number(c"disk_processed"),
            message,
        };
        // SAFETY: libvirt allocated them for the caller to free with this function; NULL is allowed.
        unsafe { sys::virTypedParamsFree(parameters, count) };
        Ok(job)
    }
}

struct CopyJob {
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

/// The machine's disk is `vda` (domain_xml.rs). Disks that the XML does not name, such as the seed, are not copied.
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
