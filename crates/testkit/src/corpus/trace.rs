//! One visit to the shop: a tree of spans, each encoded as it ends.

use std::fmt::Write;

use spoor_model::wire::{put_bytes, put_fixed32, put_fixed64, put_text, put_uint};
use spoor_model::{SpanId, TraceId};

use super::pods::{Pod, uuid};
use super::shop::{Flavor, Operation, PODS_PER_SERVICE, VISITS};
use crate::rng::Rng;
use crate::write::{bool_attribute, int_attribute, text_attribute};

/// One encoded span and where it comes from.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recorded {
    /// When it is exported: at its end.
    pub(super) end: u64,
    /// Number of its pod.
    pub(super) pod: usize,
    /// Number of its scope.
    pub(super) scope: usize,
    /// The encoded `Span`.
    pub(super) encoded: Vec<u8>,
}

/// Visitors have accounts and come back.
const USER_COUNT: usize = 30_000;
/// One span of this many fails by itself; its caller fails with it every second time.
const FAILURE: f64 = 0.007;
/// Spans that did not fail and still have an event.
const EVENT: f64 = 0.05;

/// Records visits.
pub(super) struct Recorder<'a> {
    pub(super) pods: &'a [Pod],
    pub(super) rng: &'a mut Rng,
    pub(super) out: Vec<Recorded>,
    trace_id: TraceId,
    user: usize,
    session: String,
    text: String,
}

/// A span being recorded.
struct Open {
    peer: usize,
    span_id: SpanId,
    parent: Option<SpanId>,
    start: u64,
    end: u64,
    has_failed: bool,
}

impl<'a> Recorder<'a> {
    /// A recorder with an empty `out`.
    pub(super) fn new(pods: &'a [Pod], rng: &'a mut Rng) -> Self {
        Self {
            pods,
            rng,
            out: Vec::new(),
            trace_id: TraceId::default(),
            user: 0,
            session: String::new(),
            text: String::new(),
        }
    }

    /// Records one visit that starts at `start`.
    pub(super) fn visit(&mut self, trace_id: TraceId, start: u64) {
        self.trace_id = trace_id;
        self.user = self.rng.popular(USER_COUNT);
        // A user has a few sessions, one of them recent.
        let mut session_rng = Rng::seeded((self.user as u64) << 8 | self.rng.popular(12) as u64);
        self.session = uuid(&mut session_rng);
        let mut place = self.rng.below(100);
        let mut root = VISITS[0].0;
        for (operation, share) in &VISITS {
            root = operation;
            if place < *share {
                break;
            }
            place -= share;
        }
        let pod = self.pod_of(root);
        self.record(root, None, pod, pod, start);
    }

    fn pod_of(&mut self, operation: &Operation) -> usize {
        operation.service * PODS_PER_SERVICE + self.rng.index(PODS_PER_SERVICE)
    }

    /// Records an operation and all that it leads to; returns its end and whether it failed.
    fn record(
        &mut self,
        operation: &Operation,
        parent: Option<SpanId>,
        pod: usize,
        peer: usize,
        start: u64,
    ) -> (u64, bool) {
        let span_id = SpanId(self.rng.id());
        let mut now = start;
        let pieces = operation.calls.len() as f64 + 1.0;
        let own = self.lognormal(operation.own_us * 1000.0 / pieces);
        now += own;
        let mut has_failed = self.rng.chance(FAILURE);
        let mut peer_of_calls = peer;
        for (call, probability, times_max) in operation.calls {
            if !self.rng.chance(*probability) {
                continue;
            }
            for _ in 0..1 + self.rng.below(*times_max) {
                let callee = if call.service == operation.service { pod } else { self.pod_of(call) };
                peer_of_calls = callee;
                let network = if callee == pod { 2_000 } else { self.lognormal(90_000.0) };
                let (end, call_failed) = self.record(call, Some(span_id), callee, pod, now + network);
                let is_message = matches!(operation.flavor, Flavor::Publish(_));
                now = if is_message { now + network } else { end + network };
                now += self.lognormal(operation.own_us * 1000.0 / pieces);
                has_failed |= call_failed && !is_message && self.rng.chance(0.5);
            }
        }
        let peer = if matches!(operation.flavor, Flavor::RpcClient(..) | Flavor::HttpClient(..)) {
            peer_of_calls
        } else {
            peer
        };
        let open = Open { peer, span_id, parent, start, end: now, has_failed };
        let encoded = self.encode(operation, &open);
        let scope = usize::from(matches!(operation.flavor, Flavor::Sql(..) | Flavor::Cache(_)));
        self.out.push(Recorded { end: now, pod, scope, encoded });
        (now, has_failed)
    }

    /// A duration around `median` nanoseconds, with the long tail that latencies have.
    fn lognormal(&mut self, median: f64) -> u64 {
        let sum: f64 = (0..4).map(|_| self.rng.unit() - 0.5).sum();
        (median * (sum * 1.6).exp()) as u64
    }

    fn encode(&mut self, operation: &Operation, open: &Open) -> Vec<u8> {
        let mut out = Vec::with_capacity(480);
        put_bytes(&mut out, 1, &self.trace_id.0);
        put_bytes(&mut out, 2, &open.span_id.0);
        if let Some(parent) = open.parent {
            put_bytes(&mut out, 4, &parent.0);
        }
        put_text(&mut out, 5, operation.name.as_bytes());
        let kind = match operation.flavor {
            Flavor::Internal(_) => 1,
            Flavor::HttpServer(..) | Flavor::RpcServer(..) => 2,
            Flavor::HttpClient(..) | Flavor::RpcClient(..) | Flavor::Sql(..) | Flavor::Cache(_) => 3,
            Flavor::Publish(_) => 4,
            Flavor::Consume(_) => 5,
        };
        put_uint(&mut out, 6, kind);
        put_fixed64(&mut out, 7, open.start);
        put_fixed64(&mut out, 8, open.end);
        match operation.flavor {
            Flavor::HttpServer(method, route) => self.http_server(&mut out, open, method, route),
            Flavor::HttpClient(method, route) => self.http_client(&mut out, open, method, route),
            Flavor::RpcServer(service, method) | Flavor::RpcClient(service, method) => {
                self.rpc(&mut out, open, service, method, kind == 2);
            }
            Flavor::Sql(verb, table) => self.sql(&mut out, verb, table),
            Flavor::Cache(command) => self.cache(&mut out, command),
            Flavor::Publish(topic) | Flavor::Consume(topic) => self.message(&mut out, topic, kind == 4),
            Flavor::Internal(namespace) => self.internal(&mut out, operation.name, namespace),
        }
        self.event(&mut out, operation, open);
        if open.has_failed {
            let mut status = Vec::new();
            put_text(&mut status, 2, b"upstream connect error or disconnect/reset before headers");
            put_uint(&mut status, 3, 2);
            put_bytes(&mut out, 15, &status);
        } else {
            put_bytes(&mut out, 15, &[]);
        }
        let has_remote_parent = matches!(operation.flavor, Flavor::HttpServer(..) | Flavor::RpcServer(..));
        put_fixed32(&mut out, 16, if has_remote_parent { 0x301 } else { 0x101 });
        out
    }

    /// Fills in what the route leaves open.
    fn path(&mut self, route: &str) -> String {
        let id = match route {
            "/product/{id}" => format!("{:06}", self.rng.popular(5_000) * 7 + 1_000),
            "/orders/{id}" => format!("{}", 4_000_000 + self.rng.below(900_000)),
            _ => return route.to_owned(),
        };
        route.replace("{id}", &id)
    }

    fn http_server(&mut self, out: &mut Vec<u8>, open: &Open, method: &str, route: &str) {
        text_attribute(out, 9, "http.request.method", method);
        text_attribute(out, 9, "http.route", route);
        let path = self.path(route);
        text_attribute(out, 9, "url.path", &path);
        text_attribute(out, 9, "url.scheme", "https");
        text_attribute(out, 9, "server.address", "shop.example.com");
        let place = self.rng.popular(9_000);
        let client = format!("203.{}.{}.{}", place % 7 + 1, place / 7 % 250, place / 1750);
        text_attribute(out, 9, "client.address", &client);
        let agents = [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/139.0 Safari/537.36",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.5 Safari/605.1.15",
            "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
            "ShopApp/7.4.1 (iPhone; iOS 18.6)",
        ];
        let agent = agents[self.rng.popular(agents.len())];
        text_attribute(out, 9, "user_agent.original", agent);
        let status = if open.has_failed {
            500 + self.rng.below(4) as i64
        } else {
            *self.rng.pick(&[200, 200, 200, 200, 200, 200, 304, 404])
        };
        int_attribute(out, 9, "http.response.status_code", status);
        int_attribute(out, 9, "http.response.body.size", (self.rng.popular(4_000) * 16 + 220) as i64);
        text_attribute(out, 9, "network.protocol.version", "2");
        self.visitor(out);
        if open.parent.is_none() {
            bool_attribute(out, 9, "app.is_returning", self.user.is_multiple_of(3));
        }
    }

    fn visitor(&mut self, out: &mut Vec<u8>) {
        let user = format!("u-{:06}", self.user * 17 + 100_000);
        text_attribute(out, 9, "user.id", &user);
        text_attribute(out, 9, "session.id", &self.session);
    }

    fn http_client(&mut self, out: &mut Vec<u8>, open: &Open, method: &str, route: &str) {
        let path = self.path(route);
        text_attribute(out, 9, "http.request.method", method);
        self.text.clear();
        let _ = write!(self.text, "http://frontend.shop.svc:8080{path}");
        text_attribute(out, 9, "url.full", &self.text);
        text_attribute(out, 9, "server.address", "frontend.shop.svc");
        int_attribute(out, 9, "server.port", 8080);
        text_attribute(out, 9, "network.peer.address", &self.pods[open.peer].address);
        int_attribute(out, 9, "network.peer.port", 8080);
        int_attribute(out, 9, "http.response.status_code", if open.has_failed { 503 } else { 200 });
        text_attribute(out, 9, "network.protocol.version", "1.1");
    }

    fn rpc(&mut self, out: &mut Vec<u8>, open: &Open, service: &str, method: &str, is_server: bool) {
        text_attribute(out, 9, "rpc.system", "grpc");
        text_attribute(out, 9, "rpc.service", service);
        text_attribute(out, 9, "rpc.method", method);
        int_attribute(out, 9, "rpc.grpc.status_code", if open.has_failed { 14 } else { 0 });
        text_attribute(out, 9, "network.peer.address", &self.pods[open.peer].address);
        if is_server {
            let port = *self.rng.pick(&self.pods[open.peer].ports);
            int_attribute(out, 9, "network.peer.port", i64::from(port));
            int_attribute(out, 9, "thread.id", 20 + self.rng.below(24) as i64);
            if service == "shop.Cart" || service == "shop.Checkout" {
                self.visitor(out);
            }
        } else {
            int_attribute(out, 9, "network.peer.port", 50_051);
        }
    }

    fn sql(&mut self, out: &mut Vec<u8>, verb: &str, table: &str) {
        self.text.clear();
        let text = &mut self.text;
        let (a, b) = (self.rng.below(5_000_000), self.rng.below(100_000));
        let _ = match verb {
            "SELECT" => write!(
                text,
                "SELECT id, name, price_cents, stock FROM {table} WHERE id = {a} AND region = {} LIMIT {}",
                b % 12,
                10 * (1 + b % 5)
            ),
            "INSERT" => write!(
                text,
                "INSERT INTO {table} (id, user_id, amount_cents, state) VALUES ({a}, {}, {b}, 'new')",
                self.user
            ),
            _ => write!(text, "UPDATE {table} SET stock = stock - {} WHERE id = {a} AND version = {b}", 1 + b % 4),
        };
        text_attribute(out, 9, "db.system.name", "postgresql");
        text_attribute(out, 9, "db.namespace", "shop");
        text_attribute(out, 9, "db.operation.name", verb);
        text_attribute(out, 9, "db.collection.name", table);
        text_attribute(out, 9, "db.statement", &self.text);
        text_attribute(out, 9, "server.address", "pg-primary.shop.svc");
        int_attribute(out, 9, "server.port", 5432);
        int_attribute(
            out,
            9,
            "db.response.returned_rows",
            if verb == "SELECT" { self.rng.popular(50) as i64 } else { 1 },
        );
    }

    fn cache(&mut self, out: &mut Vec<u8>, command: &str) {
        text_attribute(out, 9, "db.system.name", "redis");
        text_attribute(out, 9, "db.operation.name", command);
        self.text.clear();
        let _ = write!(self.text, "{command} cart:u-{:06}", self.user * 17 + 100_000);
        text_attribute(out, 9, "db.statement", &self.text);
        text_attribute(out, 9, "server.address", "redis-cart.shop.svc");
        int_attribute(out, 9, "server.port", 6379);
        text_attribute(out, 9, "network.transport", "tcp");
    }

    fn message(&mut self, out: &mut Vec<u8>, topic: &str, is_publish: bool) {
        text_attribute(out, 9, "messaging.system", "kafka");
        text_attribute(out, 9, "messaging.destination.name", topic);
        text_attribute(out, 9, "messaging.operation.type", if is_publish { "publish" } else { "process" });
        text_attribute(out, 9, "messaging.client.id", "shop-orders");
        int_attribute(out, 9, "messaging.message.body.size", 300 + self.rng.below(2_000) as i64);
        int_attribute(out, 9, "messaging.kafka.offset", 90_000_000 + self.rng.below(1_000_000) as i64);
        let partition = self.rng.below(12).to_string();
        text_attribute(out, 9, "messaging.destination.partition.id", &partition);
    }

    fn internal(&mut self, out: &mut Vec<u8>, name: &str, namespace: &str) {
        text_attribute(out, 9, "code.function.name", name);
        text_attribute(out, 9, "code.namespace", namespace);
        let thread = 20 + self.rng.below(24) as i64;
        int_attribute(out, 9, "thread.id", thread);
        self.text.clear();
        let _ = write!(self.text, "worker-{thread}");
        text_attribute(out, 9, "thread.name", &self.text);
        int_attribute(out, 9, "app.items.count", self.rng.popular(40) as i64);
        bool_attribute(out, 9, "app.cache.hit", self.rng.chance(0.8));
    }

    fn event(&mut self, out: &mut Vec<u8>, operation: &Operation, open: &Open) {
        if !open.has_failed && !self.rng.chance(EVENT) {
            return;
        }
        let mut event = Vec::with_capacity(256);
        put_fixed64(&mut event, 1, open.start + (open.end - open.start) / 2);
        if open.has_failed {
            put_text(&mut event, 2, b"exception");
            text_attribute(&mut event, 3, "exception.type", "shop.UpstreamException");
            text_attribute(&mut event, 3, "exception.message", "deadline exceeded after 2s");
            self.text.clear();
            let _ = write!(
                self.text,
                "shop.UpstreamException: deadline exceeded after 2s\n\tat shop.{}.call(Client.java:{})\n\tat shop.Main.run(Main.java:71)",
                operation.name,
                100 + self.rng.below(9)
            );
            text_attribute(&mut event, 3, "exception.stacktrace", &self.text);
        } else {
            put_text(&mut event, 2, b"message");
            text_attribute(&mut event, 3, "message.type", "RECEIVED");
            int_attribute(&mut event, 3, "message.id", 1);
            int_attribute(&mut event, 3, "message.uncompressed_size", self.rng.below(900) as i64);
        }
        put_bytes(out, 11, &event);
    }
}
