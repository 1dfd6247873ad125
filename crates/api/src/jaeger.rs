//! The query API of Jaeger, as its UI, Grafana and Kiali use it.
