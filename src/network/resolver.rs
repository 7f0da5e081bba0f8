//! Asks the host's resolver, for names that are not the project's.

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A longer one is cut off, in bytes.
const LONGEST_CONF: u64 = 64 << 10;
/// As many as the C library uses (resolv.conf(5)).
const SERVERS: usize = 3;
const DNS: u16 = 53;

/// How long one server may take. A guest's C library waits 5 s in all.
const PATIENCE: Duration = Duration::from_millis(2200);

/// Returns the answer of the first of the host's name servers that gives one.
pub(super) async fn ask(question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
    for server in servers(&read_conf().unwrap_or_default()) {
        let answer = timeout(PATIENCE, async {
            match by_tcp {
                true => ask_by_tcp(question, server).await,
                false => ask_by_udp(question, server).await,
            }
        });
        if let Ok(Ok(answer)) = answer.await {
            return Some(answer);
        }
    }
    None
}

fn read_conf() -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(RESOLV_CONF)?
        .take(LONGEST_CONF)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn servers(conf: &str) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = (conf.lines())
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = (words.next() == Some("nameserver")).then(|| words.next())??;
            Some(SocketAddr::new(address.parse().ok()?, DNS))
        })
        .take(SERVERS)
        .collect();
    match found.is_empty() {
        // What the C library does without any.
        true => vec![SocketAddr::new(IpAddr::from([127, 0, 0, 1]), DNS)],
        false => found,
    }
}

async fn ask_by_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any = match server.is_ipv4() {
        true => IpAddr::from([0, 0, 0, 0]),
        false => IpAddr::from([0; 16]),
    };
    // A port and a number of its own for each question, so that nobody elsewhere can guess both.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    let (asked, own, sent) = with_own_id(question)?;
    socket.send(&sent).await?;
    let mut bytes = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if let Some(answer) = accept(&bytes[..length], &asked, own) {
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (asked, own, sent) = with_own_id(question)?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(sent);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    accept(&bytes, &asked, own).ok_or_else(|| io::Error::other("an answer to another question"))
}

/// Returns the question as parsed, a number that nobody can guess, and the question with that number.
fn with_own_id(question: &[u8]) -> io::Result<(Message, [u8; 2], Vec<u8>)> {
    let asked = Message::from_vec(question).map_err(io::Error::other)?;
    let mut own = [0; 2];
    getrandom::fill(&mut own).map_err(io::Error::other)?;
    let mut sent = question.to_vec();
    sent[..2].copy_from_slice(&own);
    Ok((asked, own, sent))
}

/// Returns the answer with the number of the question, if it is the answer to this question.
fn accept(bytes: &[u8], asked: &Message, own: [u8; 2]) -> Option<Vec<u8>> {
    if bytes.get(..2)? != own {
        return None;
    }
    let answer = Message::from_vec(bytes).ok()?;
    let fits = answer.metadata.message_type == hickory_proto::op::MessageType::Response
        && (answer.queries == asked.queries || answer.queries.is_empty());
    fits.then(|| {
        let mut bytes = bytes.to_vec();
        bytes[..2].copy_from_slice(&asked.metadata.id.to_be_bytes());
        bytes
    })
}

/// Returns what of an answer fits into one packet of the network, marked as cut off if that is not all.
pub(super) fn fitting(answer: Vec<u8>, longest: usize) -> Option<Vec<u8>> {
    if answer.len() <= longest {
        return Some(answer);
    }
    Message::from_vec(&answer).ok()?.truncate().to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{
        op::{MessageType, Query},
        rr::{Name, RecordType},
    };
    use std::str::FromStr;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let conf = "# x\nsearch a b\nnameserver 10.0.0.1\nnameserver fe80::1\n;nameserver 9.9.9.9\nnameserver\n\
            nameserver bad\nnameserver\t127.0.0.53 # more\nnameserver 8.8.8.8\n";
        let found: Vec<String> = servers(conf).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[fe80::1]:53", "127.0.0.53:53"]);
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let mut message = Message::query();
        message.add_query(Query::query(
            Name::from_str("a.example.").unwrap(),
            RecordType::A,
        ));
        let (asked, own, sent) = with_own_id(&message.to_vec().unwrap()).unwrap();
        assert_eq!(accept(&sent, &asked, own), None, "it is a question");
        let mut answer = Message::from_vec(&sent).unwrap();
        answer.metadata.message_type = MessageType::Response;
        let good = answer.to_vec().unwrap();
        let taken = accept(&good, &asked, own).unwrap();
        assert_eq!(
            Message::from_vec(&taken).unwrap().metadata.id,
            message.metadata.id
        );
        assert_eq!(accept(&good, &asked, [own[0] ^ 1, own[1]]), None);
        let mut other = answer.clone();
        other.queries[0].set_name(Name::from_str("b.example.").unwrap());
        assert_eq!(accept(&other.to_vec().unwrap(), &asked, own), None);
    }
}
