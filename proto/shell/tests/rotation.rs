// SPDX-License-Identifier: EUPL-1.2
//! Certificates that are replaced on disk are in use for the next handshake on both sides, and what is connected stays so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use plenum_shell::tls::{Connector, Tls, TlsError};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tower::Service;

const NAME: &str = "part.plenum.internal";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("params");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("plenum-rotation-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(directory: &Path, ca: &str, (certificate, key): &(String, String)) {
    for (name, text) in [("ca.crt", ca), ("tls.crt", certificate), ("tls.key", key)] {
        std::fs::write(directory.join(name), text).expect("written");
    }
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// A service that echoes, and tells which certificates its callers show.
async fn serve(tls: &Tls) -> (SocketAddr, mpsc::Receiver<CertificateDer<'static>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (tell, callers) = mpsc::channel(16);
    let accepted = tls.accept(TcpListenerStream::new(listener));
    tokio::spawn(async move {
        let mut accepted = std::pin::pin!(accepted);
        while let Some(Ok(mut stream)) = accepted.next().await {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let _ = tell.send(shown[0].clone().into_owned()).await;
            tokio::spawn(async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    let _ = stream.write_all(&byte).await;
                }
            });
        }
    });
    (address, callers)
}

async fn dial(connector: &mut Connector, at: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let uri = format!("http://{at}").parse().expect("an address");
    let dialled = tokio::time::timeout(Duration::from_secs(60), connector.call(uri));
    dialled.await.expect("answered").map(TokioIo::into_inner)
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

/// In TLS 1.3 a client learns only from the answer that its certificate was refused.
async fn echoes(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut byte = [7];
    stream.write_all(&byte).await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
}

#[tokio::test]
async fn a_rotated_certificate_is_shown_by_both_sides_and_cuts_nobody() {
    let authority = Authority::new();
    let (here, there) = (Folder::new(), Folder::new());
    let (server, client) = (authority.issue(), authority.issue());
    write(&here.0, &authority.pem, &server);
    write(&there.0, &authority.pem, &client);
    let serving = Tls::read(&here.0).expect("usable");
    let dialling = Tls::read(&there.0).expect("usable");
    let (address, mut callers) = serve(&serving).await;
    let mut connector = dialling.connector(NAME).expect("a name");
    let mut first = dial(&mut connector, address).await.expect("connected");
    assert_eq!(shown(&first), leaf(&server.0));
    assert_eq!(callers.recv().await.expect("a caller"), leaf(&client.0));
    assert!(!serving.reload().expect("read"), "nothing changed");

    let (server, client) = (authority.issue(), authority.issue());
    write(&here.0, &authority.pem, &server);
    write(&there.0, &authority.pem, &client);
    assert!(serving.reload().expect("read"));
    assert!(dialling.reload().expect("read"));
    let second = dial(&mut connector, address).await.expect("connected");
    assert_eq!(shown(&second), leaf(&server.0));
    assert_eq!(callers.recv().await.expect("a caller"), leaf(&client.0));
    assert!(echoes(&mut first).await, "the first connection lives on");
}

#[tokio::test]
async fn a_new_authority_replaces_the_former_one_on_both_sides() {
    let (former, next) = (Authority::new(), Authority::new());
    let (here, there) = (Folder::new(), Folder::new());
    write(&here.0, &former.pem, &former.issue());
    write(&there.0, &former.pem, &former.issue());
    let serving = Tls::read(&here.0).expect("usable");
    let dialling = Tls::read(&there.0).expect("usable");
    let (address, _callers) = serve(&serving).await;
    let mut connector = dialling.connector(NAME).expect("a name");

    // While it changes, both are trusted: the order in which parts see the change does not matter.
    let both = format!("{}{}", former.pem, next.pem);
    write(&here.0, &both, &next.issue());
    assert!(serving.reload().expect("read"));
    assert!(
        dial(&mut connector, address).await.is_err(),
        "the client does not know the new one yet"
    );
    write(&there.0, &both, &former.issue());
    assert!(dialling.reload().expect("read"));
    let mut stream = dial(&mut connector, address).await.expect("connected");
    assert!(echoes(&mut stream).await);

    // At its end the former one counts no more.
    write(&here.0, &next.pem, &next.issue());
    assert!(serving.reload().expect("read"));
    let refused = match dial(&mut connector, address).await {
        Ok(mut stream) => !echoes(&mut stream).await,
        Err(_) => true,
    };
    assert!(
        refused,
        "a certificate of the former authority is of no use"
    );
}

#[tokio::test]
async fn files_in_the_middle_of_a_change_leave_the_former_ones_in_use() {
    let authority = Authority::new();
    let folder = Folder::new();
    let pair = authority.issue();
    write(&folder.0, &authority.pem, &pair);
    let tls = Tls::read(&folder.0).expect("usable");
    let (address, _callers) = serve(&tls).await;
    let (certificate, key) = authority.issue();
    std::fs::write(folder.0.join("tls.crt"), certificate).expect("written");
    assert!(matches!(tls.reload(), Err(TlsError::Unusable(_))));
    std::fs::write(folder.0.join("tls.key"), "none").expect("written");
    assert!(matches!(
        tls.reload(),
        Err(TlsError::NotPem {
            what: "private key",
            ..
        })
    ));
    std::fs::remove_file(folder.0.join("ca.crt")).expect("removed");
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    let mut connector = tls.connector(NAME).expect("a name");
    let stream = dial(&mut connector, address).await.expect("connected");
    assert_eq!(shown(&stream), leaf(&pair.0));

    // Once it is whole, the new pair is taken.
    let (certificate, _) = authority.issue();
    write(&folder.0, &authority.pem, &(certificate, key.clone()));
    assert!(tls.reload().is_err());
    let whole = authority.issue();
    write(&folder.0, &authority.pem, &whole);
    assert!(tls.reload().expect("read"));
    let stream = dial(&mut connector, address).await.expect("connected");
    assert_eq!(shown(&stream), leaf(&whole.0));
}
