//! What all domains of a connection are made of, stead's and others': for files that must not go
//! while any of them names them.

use std::sync::Arc;

use virt::{connect::Connect, sys};

use super::{
    connection::{Connection, Uri},
    error::{Doing, HypervisorError},
};

/// A domain as libvirt has it, stopped and running.
#[derive(Clone, Debug)]
pub struct Definition {
    pub domain: String,
    pub uri: String,
    xml: String,
}

impl Definition {
    /// Whether this text stands anywhere in it.
    pub fn names(&self, text: &str) -> bool {
        self.xml.contains(text)
    }
}

impl Connection {
    /// To look and not to touch, which needs no rights and asks for no password. `None` where
    /// nothing answers.
    pub fn open_to_look(uri: &str) -> Option<Self> {
        Self::ready().ok()?;
        let connect = Connect::open_read_only(Some(uri)).ok()?;
        Some(Connection::of(
            Arc::new(connect),
            Uri {
                uri: uri.to_string(),
                source: "looked at",
            },
        ))
    }

    /// Every domain on this connection.
    pub fn definitions(&self) -> Result<Vec<Definition>, HypervisorError> {
        let domains = self
            .connect
            .list_all_domains(0)
            .doing(|| "listing domains".into())?;
        let mut found = Vec::new();
        for domain in domains {
            let name = domain.name().doing(|| "listing domains".into())?;
            let mut xml = String::new();
            for flags in [0, sys::VIR_DOMAIN_XML_INACTIVE] {
                match domain.xml_desc(flags) {
                    Ok(text) => xml.push_str(&text),
                    // It went away between the list and the look.
                    Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN => {}
                    Err(error) => {
                        return Err(HypervisorError::libvirt(
                            format!("reading the definition of domain {name}"),
                            &error,
                        ));
                    }
                }
            }
            found.push(Definition {
                domain: name,
                uri: self.uri().uri.clone(),
                xml,
            });
        }
        Ok(found)
    }
}
