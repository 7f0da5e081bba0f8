//! The definitions of all domains of a connection, stead's and others', to find files that must not be deleted
//! because a domain uses them.

use std::sync::Arc;

use virt::{connect::Connect, sys};

use super::{
    connection::{Connection, Uri, opened},
    error::{Doing, HypervisorError},
};

/// A domain's definitions: the running one and the stored one.
#[derive(Clone, Debug)]
pub struct Definition {
    pub domain: String,
    pub uri: String,
    xml: String,
}

impl Definition {
    /// Whether the definitions contain this text anywhere.
    pub fn names(&self, text: &str) -> bool {
        self.xml.contains(text)
    }
}

impl Connection {
    /// Connects read-only, which needs no rights and asks for no password. Returns `None` if nothing answers.
    pub fn open_to_look(uri: &str) -> Option<Self> {
        Self::ready().ok()?;
        let uri = Uri {
            uri: uri.to_string(),
            source: "read-only",
        };
        let connect = opened(&uri, |uri| Connect::open_read_only(Some(uri)));
        Some(Connection::of(Arc::new(connect.ok()?.ok()?), uri))
    }

    /// Returns the definitions of all domains on this connection.
    ///
    /// # Errors
    /// If libvirt does not answer.
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
                    // It was removed after the list was made.
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
