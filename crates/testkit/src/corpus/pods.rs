//! Where the corpus's spans come from: one resource per pod, two scopes per service.

use spoor_model::wire::{put_bytes, put_text};

use super::shop::{PODS_PER_SERVICE, SERVICES};
use crate::rng::Rng;
use crate::write::{int_attribute, text_attribute};

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    /// The encoded `Resource`: 20 attributes, about 1 kB.
    pub(super) resource: Vec<u8>,
    /// Its address.
    pub(super) address: String,
    /// Ports from which its connections start.
    pub(super) ports: Vec<u16>,
}

/// All pods, service by service, [`PODS_PER_SERVICE`] each.
pub(super) fn pods(rng: &mut Rng) -> Vec<Pod> {
    (0..SERVICES.len() * PODS_PER_SERVICE).map(|number| pod(rng, number)).collect()
}

fn pod(rng: &mut Rng, number: usize) -> Pod {
    let service = SERVICES[number / PODS_PER_SERVICE];
    let (language, runtime) =
        *rng.pick(&[("go", "go1.25.1"), ("java", "21.0.4+7"), ("python", "3.12.5"), ("nodejs", "22.9.0")]);
    let node = number % 6;
    let address = format!("10.{}.{}.{}", 40 + node, number, 2 + rng.below(250));
    let replica_set = format!("{service}-{:08x}", rng.bits() as u32);
    let pod_name = format!("{replica_set}-{:05x}", rng.below(1 << 20));
    let uuid = uuid(rng);
    let container: String = (0..4).map(|_| format!("{:016x}", rng.bits())).collect();
    let mut attributes = Vec::new();
    for (key, value) in [
        ("service.name", service),
        ("service.namespace", "shop"),
        ("service.version", ["2.11.0", "2.11.1"][number % 2]),
        ("service.instance.id", &uuid),
        ("deployment.environment.name", "production"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", language),
        ("telemetry.sdk.version", "1.37.0"),
        ("k8s.cluster.name", "eu-west-1-prod"),
        ("k8s.namespace.name", "shop"),
        ("k8s.deployment.name", service),
        ("k8s.replicaset.name", &replica_set),
        ("k8s.pod.name", &pod_name),
        ("k8s.pod.ip", &address),
        ("k8s.node.name", &format!("ip-10-{}-0-17.eu-west-1.compute.internal", 40 + node)),
        ("container.id", &container),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("process.runtime.version", runtime),
    ] {
        text_attribute(&mut attributes, 1, key, value);
    }
    int_attribute(&mut attributes, 1, "process.pid", 1 + rng.below(40) as i64);
    let ports = (0..200).map(|_| 32_768 + rng.below(28_000) as u16).collect();
    Pod { resource: attributes, address, ports }
}

/// A random UUID as text.
pub(super) fn uuid(rng: &mut Rng) -> String {
    let (high, low) = (rng.bits(), rng.bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// The encoded scopes, by number: what instruments requests, and what instruments data stores.
pub(super) fn scopes() -> [Vec<u8>; 2] {
    [("io.opentelemetry.rpc-and-http", "2.19.0"), ("io.opentelemetry.database", "2.19.0-alpha")].map(
        |(name, version)| {
            let mut scope = Vec::new();
            put_bytes(&mut scope, 1, name.as_bytes());
            put_text(&mut scope, 2, version.as_bytes());
            scope
        },
    )
}
