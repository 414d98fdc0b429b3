//! What those who look are shown beside this node's own sessions.

use std::sync::Arc;

use actix::Addr;

use crate::cluster::peers::Peers;
use crate::feed::Feed;
use crate::http::dashboard::{Parts, Pulse};
use crate::metrics::Metrics;
use crate::store::live::Live;
use crate::supervisor::root::RootSupervisor;

use super::Node;

impl Node {
    /// The other nodes of one record, where there may be some.
    pub(super) fn peers(&self, live: Option<&Live>) -> Peers {
        let every = self.settings.update_interval;
        let cluster = self.stores.sql.cluster().cloned();
        cluster.map_or_else(Peers::none, |store| Peers::new(store, live.cloned(), every, &self.aside))
    }

    /// What the dashboard is told.
    pub(super) fn pulse(
        &self,
        (metrics, root): (&Arc<Metrics>, &Addr<RootSupervisor>),
        feed: &Feed,
        peers: &Peers,
        redis: bool,
    ) -> Pulse {
        Pulse::new(Parts {
            node_id: self.settings.node_id.clone(),
            metrics: metrics.clone(),
            feed: feed.clone(),
            peers: peers.clone(),
            redis,
            drain: root.clone().recipient(),
        })
    }
}
