use std::collections::BTreeMap;

use clap::Args;

/// Which machines a command is about.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Machines; none means all
    #[arg(value_name = "MACHINE")]
    pub names: Vec<String>,
    /// Machines with this label (KEY=VALUE); given twice, both must fit
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}

impl Selection {
    pub fn is_all(&self) -> bool {
        self.names.is_empty() && self.labels.is_empty()
    }

    pub fn fits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.names.is_empty() || self.names.iter().any(|wanted| wanted == name))
            && self
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}
