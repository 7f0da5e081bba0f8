//! Gives guests their certificates: when they are reached after a boot, and while they run on.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::{
    guest::{certificate_answer, certificate_command, certificate_input},
    machine::{GivenCertificate, NetworkCard, Record},
    network::{domain_of, host_address},
    report::clean::words,
    tls::{Authority, Leaf, Names},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    /// Gives the guest a certificate for its names, unless it has one. Returns `None` if the machine has no names, or
    /// the guest does not take it: a machine is of use without it, too.
    pub(super) async fn give_certificate(
        &self,
        record: &Record,
        deadline: Instant,
    ) -> Result<Option<GivenCertificate>, ApplyError> {
        if !record.has_certificate() {
            return Ok(None);
        }
        let (data, path) = (self.context.data.clone(), self.files().certificate());
        let names = names(&record.project, &record.machine, &record.spec.cards);
        let (authority, leaf) = blocking(move || {
            let now = Timestamp::now();
            let authority = Authority::get(&data, now)?;
            let leaf = Leaf::get(&path, &names, &authority, now)?;
            Ok((authority, leaf))
        })
        .await?;
        let input = certificate_input(leaf.certificate(), leaf.key(), authority.certificate());
        let command = certificate_command();
        let remote = self.remote();
        let output = match timeout_at(deadline, remote.run_with(&command, input.as_bytes())).await {
            Ok(output) => output?,
            Err(_) => {
                return Err(ApplyError::Unreachable {
                    machine: self.name().to_string(),
                    limit: self.job.wanted.machine.ready.timeout,
                    said: Some("it does not say whether it has its certificate".into()),
                });
            }
        };
        let answer = certificate_answer(&output.stdout);
        for note in answer.notes {
            self.notice(words(&note));
        }
        if !answer.is_there {
            self.notice(format!(
                "it does not take its certificate: {}",
                words(&output.last_words())
            ));
            return Ok(None);
        }
        Ok(Some(GivenCertificate {
            authority: authority.fingerprint(),
            renew_after: leaf.renew_after(),
        }))
    }

    /// As the step of a machine that is ready.
    pub(super) async fn renew_certificate(&self) -> Result<(), ApplyError> {
        let (domain, record) = self.record().await?;
        self.write_ssh_files(&record)?;
        let deadline = Instant::now() + self.job.wanted.machine.ready.timeout;
        let certificate = self.give_certificate(&record, deadline).await?;
        blocking(move || Ok(domain.change_running(|it| it.certificate = certificate)?)).await
    }
}

/// Returns the names below the project's domain, the addresses on networks and those on the host.
fn names(project: &str, machine: &str, cards: &[NetworkCard]) -> Names {
    let domain = domain_of(project);
    let aliases = cards.iter().flat_map(|card| &card.aliases);
    let addresses = cards.iter().map(|card| card.address);
    Names::new(
        format!("{machine}.{domain}"),
        aliases.map(|alias| format!("{alias}.{domain}")),
        (addresses.clone()).chain(addresses.filter_map(host_address)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_all_names_below_the_domain_and_all_addresses() {
        let card = |network: &str, address: [u8; 4], aliases: &[&str]| NetworkCard {
            network: network.into(),
            subnet: "10.0.0.0/8".parse().unwrap(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: address.into(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
        };
        let cards = [
            card("back", [10, 77, 0, 10], &["pg", "postgres"]),
            card("front", [10, 78, 0, 10], &["pg"]),
        ];
        let wanted = Names::new(
            "db.shop.internal".into(),
            ["pg.shop.internal".into(), "postgres.shop.internal".into()],
            [
                [10, 77, 0, 10],
                [10, 78, 0, 10],
                [127, 77, 0, 10],
                [127, 78, 0, 10],
            ]
            .map(Into::into),
        );
        assert_eq!(names("shop", "db", &cards), wanted);
    }
}
