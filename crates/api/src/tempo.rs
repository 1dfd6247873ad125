//! The query API of Tempo, as Grafana and Kiali use it.
