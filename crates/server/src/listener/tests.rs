use std::io::{Read, Write};
use std::sync::mpsc;

use axum::routing::get;

use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections_max: 8,
    receive_timeout: Duration::from_secs(30),
    shutdown_timeout: Duration::from_secs(30),
    window_bytes: 1 << 20,
};

async fn started(router: Router, limits: ConnectionLimits) -> (SocketAddr, watch::Sender<bool>, JoinSet<()>) {
    let port = Port::bind("tempo_port", "127.0.0.1", 0).await.unwrap();
    let address = port.address();
    let (stop, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    serving.spawn(port.serve(router, None, limits, stopped));
    (address, stop, serving)
}

async fn exchange(address: SocketAddr, request: &'static str) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

const CLOSING_GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_taken_port_is_named_with_its_key() {
    let first = Port::bind("tempo_port", "127.0.0.1", 0).await.unwrap();
    let err = Port::bind("tempo_port", "127.0.0.1", first.address().port()).await.unwrap_err().to_string();
    assert!(err.starts_with("tempo_port: cannot listen on 127.0.0.1:") && err.ends_with("--tempo-port"), "{err}");
}

#[tokio::test]
async fn a_request_under_way_at_the_stop_is_finished() {
    let (entered, wait_entered) = mpsc::sync_channel(1);
    let (release, released) = watch::channel(false);
    let slow = move || {
        let (entered, mut released) = (entered.clone(), released.clone());
        async move {
            entered.send(()).unwrap();
            released.wait_for(|released| *released).await.unwrap();
            "done"
        }
    };
    let (address, stop, mut serving) = started(Router::new().route("/", get(slow)), LIMITS).await;
    let answer = tokio::spawn(exchange(address, CLOSING_GET));
    tokio::task::spawn_blocking(move || wait_entered.recv().unwrap()).await.unwrap();
    stop.send(true).unwrap();
    release.send(true).unwrap();
    assert!(answer.await.unwrap().ends_with("done"));
    serving.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let router = Router::new().route("/", get(std::future::pending::<&'static str>));
    let limits = ConnectionLimits { shutdown_timeout: Duration::from_millis(1), ..LIMITS };
    let (address, stop, mut serving) = started(router, limits).await;
    let answer = tokio::spawn(exchange(address, CLOSING_GET));
    stop.send(true).unwrap();
    serving.join_next().await.unwrap().unwrap();
    // Cut off, or never accepted: either way there is no answer.
    assert!(!matches!(answer.await, Ok(answer) if answer.contains("200")));
}
