//! DNS: answers the names of machines, and says which questions are for the host's resolver.

use std::{collections::BTreeSet, net::Ipv4Addr};

use hickory_proto::{
    op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, PTR, SOA},
    },
};

use super::{Card, PRIVATE, Wiring, wiring::Place};

/// In seconds. Machines come and go, so nobody may keep an answer for long.
const TTL: u32 = 5;

/// The name of this computer, for machines that may reach ports of it.
const HOST: &str = "host.internal";

/// What a question gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Reply(Vec<u8>),
    /// The host's resolver may know this name, in small letters and without a dot at its end.
    Ask(String),
    /// It is no question.
    Nothing,
}

/// Answers a question of a card. `longest` is how many bytes the answer may have without EDNS.
pub(super) fn answer(question: &[u8], wiring: &Wiring, asker: Place, longest: usize) -> Answer {
    let Some((card, _)) = wiring.card(asker) else {
        return Answer::Nothing;
    };
    let Ok(asked) = Message::from_vec(question) else {
        return Answer::Nothing;
    };
    if asked.metadata.message_type != MessageType::Query {
        return Answer::Nothing;
    }
    let [query] = asked.queries.as_slice() else {
        return reply(&asked, ResponseCode::FormErr, Vec::new(), longest);
    };
    if asked.metadata.op_code != OpCode::Query || query.query_class() != DNSClass::IN {
        return reply(&asked, ResponseCode::NotImp, Vec::new(), longest);
    }
    match find(wiring, asker, card, query) {
        Found::Records(records) => reply(&asked, ResponseCode::NoError, records, longest),
        Found::Missing => reply(&asked, ResponseCode::NXDomain, Vec::new(), longest),
        Found::Elsewhere if card.internet => Answer::Ask(written(query.name())),
        // An answer at once, because a guest waits seconds for one that never comes.
        Found::Elsewhere => reply(&asked, ResponseCode::NXDomain, Vec::new(), longest),
    }
}

/// Returns the answer that the host's resolver could not give.
pub(super) fn failed(question: &[u8], longest: usize) -> Option<Vec<u8>> {
    without_records(question, ResponseCode::ServFail, longest)
}

/// Returns the answer that a name does not exist, for one that may not be looked up.
pub(super) fn missing(question: &[u8], longest: usize) -> Option<Vec<u8>> {
    without_records(question, ResponseCode::NXDomain, longest)
}

/// Returns the addresses that an answer names, and for how many seconds it lives.
pub(super) fn addresses_in(answer: &[u8]) -> Vec<(Ipv4Addr, u32)> {
    let answer = Message::from_vec(answer);
    (answer.iter().flat_map(|it| &it.answers))
        .filter_map(|record| match record.data {
            RData::A(A(address)) => Some((address, record.ttl)),
            _ => None,
        })
        .collect()
}

fn without_records(question: &[u8], code: ResponseCode, longest: usize) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    match reply(&asked, code, Vec::new(), longest) {
        Answer::Reply(bytes) => Some(bytes),
        _ => None,
    }
}

enum Found {
    /// The name exists; it may have no such record.
    Records(Vec<Record>),
    Missing,
    Elsewhere,
}

fn find(wiring: &Wiring, asker: Place, card: &Card, query: &Query) -> Found {
    if let Ok(net) = query.name().parse_arpa_name() {
        let address = match net.addr() {
            std::net::IpAddr::V4(address) if net.prefix_len() == 32 => address,
            _ => return Found::Elsewhere,
        };
        return find_address(wiring, card, address, query);
    }
    let name = written(query.name());
    if name == HOST {
        return match wiring.way_to_host(&card.machine) {
            Some(address) => Found::Records(match query.query_type() {
                RecordType::A | RecordType::ANY => vec![record(query, address)],
                _ => Vec::new(),
            }),
            // The domain of a project named "host": names below it exist.
            None if wiring.domain == HOST => Found::Records(Vec::new()),
            None => Found::Missing,
        };
    }
    let mut labels = name.split('.');
    let host = match name.strip_suffix(wiring.domain.as_str()) {
        Some("") => return Found::Records(Vec::new()),
        Some(rest) if rest.ends_with('.') => &rest[..rest.len() - 1],
        _ if !name.contains('.') => name.as_str(),
        _ if labels.next_back() == Some(PRIVATE) => return Found::Missing,
        _ => return Found::Elsewhere,
    };
    let addresses = addresses(wiring, asker, card, host);
    if addresses.is_empty() {
        return Found::Missing;
    }
    Found::Records(match query.query_type() {
        RecordType::A | RecordType::ANY => (addresses.into_iter())
            .map(|it| record(query, it))
            .collect(),
        _ => Vec::new(),
    })
}

/// A name in small letters, without a dot at its end. Bytes that are no UTF-8 are replaced, and so are dots within a
/// label, which no host name has.
fn written(name: &Name) -> String {
    let labels: Vec<String> = (name.iter())
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .map(|label| label.replace('.', "\u{fffd}"))
        .collect();
    labels.join(".")
}

fn record(query: &Query, address: Ipv4Addr) -> Record {
    Record::from_rdata(query.name().clone(), TTL, RData::A(A(address)))
}

/// The addresses of a machine, or of all that have this alias, on the networks that the asker is on. Those on the
/// network by which it asks come first.
fn addresses(wiring: &Wiring, asker: Place, card: &Card, host: &str) -> Vec<Ipv4Addr> {
    let mut networks: Vec<usize> = wiring.networks_of(&card.machine).collect();
    networks.sort_by_key(|&network| network != asker.network);
    let mut seen = BTreeSet::new();
    (networks.iter())
        .flat_map(|&network| &wiring.networks[network].cards)
        .filter(|it| it.machine == host || it.aliases.iter().any(|alias| alias == host))
        .map(|it| it.address)
        .filter(|it| seen.insert(*it))
        .collect()
}

fn find_address(wiring: &Wiring, card: &Card, address: Ipv4Addr, query: &Query) -> Found {
    let Some(network) =
        (wiring.networks.iter()).position(|network| network.subnet.contains(address))
    else {
        return Found::Elsewhere;
    };
    let is_on = wiring.networks_of(&card.machine).any(|it| it == network);
    let cards = wiring.networks[network].cards.iter();
    let Some(found) = cards.into_iter().find(|it| is_on && it.address == address) else {
        return Found::Missing;
    };
    let Ok(name) = Name::from_ascii(format!("{}.{}.", found.machine, wiring.domain)) else {
        return Found::Missing;
    };
    Found::Records(match query.query_type() {
        RecordType::PTR | RecordType::ANY => vec![Record::from_rdata(
            query.name().clone(),
            TTL,
            RData::PTR(PTR(name)),
        )],
        _ => Vec::new(),
    })
}

fn reply(asked: &Message, code: ResponseCode, records: Vec<Record>, longest: usize) -> Answer {
    let mut message = Message::response(asked.metadata.id, asked.metadata.op_code);
    message.metadata = Metadata::response_from_request(&asked.metadata);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    message.add_queries(asked.queries.iter().take(1).cloned());
    // How long it may be remembered that there is none (RFC 2308).
    if records.is_empty() && message.metadata.authoritative {
        message.add_authority(soa());
    }
    message.add_answers(records);
    let longest = match &asked.edns {
        Some(edns) => {
            let mut own = hickory_proto::op::Edns::new();
            own.set_max_payload(1232);
            message.set_edns(own);
            longest.max(usize::from(edns.max_payload()).min(1232))
        }
        None => longest,
    };
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= longest => Answer::Reply(bytes),
        Ok(_) => match message.truncate().to_vec() {
            Ok(bytes) => Answer::Reply(bytes),
            Err(_) => Answer::Nothing,
        },
        Err(_) => Answer::Nothing,
    }
}

fn soa() -> Record {
    let zone = Name::from_labels([PRIVATE.as_bytes()]).unwrap_or_else(|_| Name::root());
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, 1);
    Record::from_rdata(zone, 1, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Mac, Network};
    use std::str::FromStr;

    fn card(machine: &str, address: &str, aliases: &[&str]) -> Card {
        Card {
            machine: machine.into(),
            mac: Mac([0; 6]),
            address: address.parse().unwrap(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            internet: machine != "ci",
            egress: None,
        }
    }

    fn wiring() -> Wiring {
        let network = |name: &str, subnet: &str, cards| Network {
            name: name.into(),
            subnet: subnet.parse().unwrap(),
            cards,
        };
        Wiring {
            guests: Vec::new(),
            ways_in: Vec::new(),
            starting: Vec::new(),
            domain: "shop.internal".into(),
            links: None,
            networks: vec![
                network(
                    "back",
                    "10.77.0.0/24",
                    vec![
                        card("db", "10.77.0.10", &["postgres"]),
                        card("web", "10.77.0.11", &[]),
                    ],
                ),
                network(
                    "front",
                    "10.78.0.0/24",
                    vec![
                        card("web", "10.78.0.11", &[]),
                        card("ci", "10.78.0.12", &[]),
                    ],
                ),
            ],
        }
    }

    const DB: Place = Place {
        network: 0,
        card: 0,
    };
    const WEB_BY_FRONT: Place = Place {
        network: 1,
        card: 0,
    };
    const CI: Place = Place {
        network: 1,
        card: 1,
    };

    /// The answer in words: its code, and its records.
    fn ask(asker: Place, name: &str, kind: RecordType) -> String {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        match answer(&message.to_vec().unwrap(), &wiring(), asker, 512) {
            Answer::Reply(bytes) => {
                let reply = Message::from_vec(&bytes).unwrap();
                assert_eq!(reply.metadata.id, message.metadata.id);
                assert_eq!(reply.queries, message.queries);
                let records: Vec<String> =
                    reply.answers.iter().map(|it| it.data.to_string()).collect();
                format!("{} {}", reply.metadata.response_code, records.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_are_those_of_machines_on_shared_networks() {
        use RecordType::{A, AAAA, PTR};
        for (asker, name, kind, expected) in [
            (DB, "web.shop.internal.", A, "No Error 10.77.0.11"),
            (DB, "WEB.Shop.Internal.", A, "No Error 10.77.0.11"),
            (DB, "web.", A, "No Error 10.77.0.11"),
            (DB, "web.shop.internal.", AAAA, "No Error "),
            (DB, "ci.shop.internal.", A, "Non-Existent Domain "),
            (DB, "shop.internal.", A, "No Error "),
            (WEB_BY_FRONT, "web.", A, "No Error 10.78.0.11 10.77.0.11"),
            (WEB_BY_FRONT, "postgres.", A, "No Error 10.77.0.10"),
            (CI, "web.", A, "No Error 10.78.0.11"),
            (CI, "db.", A, "Non-Existent Domain "),
            (
                DB,
                "11.0.77.10.in-addr.arpa.",
                PTR,
                "No Error web.shop.internal.",
            ),
            (DB, "99.0.77.10.in-addr.arpa.", PTR, "Non-Existent Domain "),
            (CI, "10.0.77.10.in-addr.arpa.", PTR, "Non-Existent Domain "),
        ] {
            assert_eq!(ask(asker, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn other_names_are_the_hosts_resolvers_and_private_ones_end_here() {
        use RecordType::{A, PTR};
        for (name, kind) in [
            ("Example.ORG.", A),
            ("notshop.internal.example.org.", A),
            ("8.8.8.8.in-addr.arpa.", PTR),
        ] {
            let small = name.trim_end_matches('.').to_lowercase();
            assert_eq!(ask(DB, name, kind), format!("Ask({small:?})"));
        }
        // No name reads like another one.
        assert_eq!(
            ask(DB, "evil\\.example.org.", A),
            "Ask(\"evil\u{fffd}example.org\")"
        );
        for name in [
            "other.internal.",
            "xshop.internal.",
            "nosuch.",
            "nosuch.shop.internal.",
        ] {
            assert_eq!(ask(DB, name, A), "Non-Existent Domain ", "{name}");
        }
        // A machine without a way out does not get out by DNS.
        assert_eq!(ask(CI, "example.org.", A), "Non-Existent Domain ");
    }

    #[test]
    fn this_computer_has_a_name_for_machines_that_may_reach_it() {
        let mut wiring = wiring();
        let name = Query::query(Name::from_str("host.internal.").unwrap(), RecordType::A);
        let mut message = Message::query();
        message.add_query(name);
        let bytes = message.to_vec().unwrap();
        let addresses = |wiring: &Wiring, asker| match answer(&bytes, wiring, asker, 512) {
            Answer::Reply(reply) => addresses_in(&reply),
            other => panic!("{other:?}"),
        };
        assert_eq!(addresses(&wiring, DB), []);
        let code = |wiring: &Wiring| match answer(&bytes, wiring, DB, 512) {
            Answer::Reply(reply) => Message::from_vec(&reply).unwrap().metadata.response_code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&wiring), ResponseCode::NXDomain);
        // That a name does not exist means the same of all below it (RFC 8020), such as db.host.internal.
        let of_project_host = Wiring {
            domain: "host.internal".into(),
            ..wiring.clone()
        };
        assert_eq!(code(&of_project_host), ResponseCode::NoError);
        wiring.networks[0].cards[0].egress = Some(crate::network::Egress {
            allow: None,
            host_tcp: vec![5432],
        });
        assert_eq!(addresses(&wiring, DB), [(Ipv4Addr::new(10, 77, 0, 1), TTL)]);
        assert_eq!(addresses(&wiring, WEB_BY_FRONT), []);
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        let mut message = Message::query();
        let two = [(); 2].map(|()| Query::query(Name::from_str("web.").unwrap(), RecordType::A));
        message.add_queries(two);
        let said = answer(&message.to_vec().unwrap(), &wiring(), DB, 512);
        assert!(matches!(said, Answer::Reply(_)), "{said:?}");
        message.metadata.message_type = MessageType::Response;
        let bytes = message.to_vec().unwrap();
        assert_eq!(answer(&bytes, &wiring(), DB, 512), Answer::Nothing);
        for end in 0..12 {
            assert_eq!(answer(&bytes[..end], &wiring(), DB, 512), Answer::Nothing);
        }
    }

    #[test]
    fn a_long_answer_is_cut_off_and_says_so() {
        let mut wiring = wiring();
        wiring.networks[0]
            .cards
            .extend((20..90).map(|n| card(&format!("web-{n}"), &format!("10.77.0.{n}"), &["all"])));
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_str("all.").unwrap(), RecordType::A));
        let bytes = message.to_vec().unwrap();
        let Answer::Reply(short) = answer(&bytes, &wiring, DB, 512) else {
            panic!("no reply")
        };
        assert!(short.len() <= 512);
        assert!(Message::from_vec(&short).unwrap().metadata.truncation);
        let Answer::Reply(long) = answer(&bytes, &wiring, DB, 65_535) else {
            panic!("no reply")
        };
        assert_eq!(Message::from_vec(&long).unwrap().answers.len(), 70);
    }
}
