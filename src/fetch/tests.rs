//! Servers that answer otherwise than a server of files does.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use miette::Diagnostic;
use reqwest::Url;

use super::{FetchError, Fetcher};

/// A place on this host that answers so, whatever is asked.
fn answers(scheme: &str, answer: String) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Url::parse(&format!("{scheme}://127.0.0.1:{port}/a?secret")).unwrap()
}

async fn error(url: &Url) -> FetchError {
    Fetcher::direct().unwrap().small(url).await.unwrap_err()
}

#[tokio::test]
async fn a_redirect_to_another_scheme_says_where_it_would_lead() {
    for to in [
        "file:///etc/passwd",
        "ftp://example.org/a",
        "data:text/plain,x",
        "gopher://e/",
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let error = error(&answers("http", answer)).await;
        let said = error.to_string();
        assert!(
            said.contains(&format!(
                "the server redirects to {to:?}, which is not an https or http URL"
            )),
            "{said}"
        );
        assert!(!said.contains("secret"), "{said}");
        assert!(!error.help().unwrap().to_string().contains("PROXY"));
    }
    let long = format!("file:///{}", "x".repeat(5000));
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {long}\r\nContent-Length: 0\r\n\r\n");
    let said = error(&answers("http", answer)).await.to_string();
    assert!(said.len() < 500, "{said}");
}

#[tokio::test]
async fn what_speaks_no_http_is_told_as_that() {
    let ssh = || "SSH-2.0-OpenSSH_9.2p1\r\n".to_string();
    for (scheme, wanted) in [("http", "HTTP"), ("https", "TLS")] {
        let url = answers(scheme, ssh());
        let error = error(&url).await;
        let said = error.to_string();
        assert!(
            matches!(&error, FetchError::NotHttp { wanted: found, .. } if *found == wanted),
            "{error:?}"
        );
        let host = format!("127.0.0.1:{}", url.port().unwrap());
        assert!(
            said.contains(&host) && said.contains("the answer is not"),
            "{said}"
        );
        assert!(
            error.help().unwrap().to_string().contains("host and port"),
            "{error:?}"
        );
    }
}
