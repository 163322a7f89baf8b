//! An upstream behind TLS, whose certificate a company's own authority has signed.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::backend::{Backend, BackendError};

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// The URL of a server with one model, and the authority that vouches for it.
async fn server() -> (String, CertificateDer<'static>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1", tcp.local_addr().unwrap().port());
    let models = || async { r#"{"object":"list","data":[{"id":"m","object":"model"}]}"# };
    let app = Router::new().route("/v1/models", get(models));
    let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(tls)) };
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, root.der().clone())
}

#[tokio::test]
async fn a_certificate_counts_only_with_its_authority() {
    let (url, authority) = server().await;
    let trusting = Upstream::trusting(&url, None, &[authority]).unwrap();
    assert_eq!(trusting.models().await.unwrap()[0].id, "m");

    // Nobody whom the web trusts has signed it.
    let other = Upstream::new(&url, None).unwrap();
    let refused = other.models().await.unwrap_err();
    assert!(matches!(refused, BackendError::Upstream { .. }), "{refused:?}");

    let (_, another) = server().await;
    assert!(Upstream::trusting(&url, None, &[another]).unwrap().models().await.is_err());
}
