//! This node's membership: renews its lease, watches the others', and ends what the lost have left.
//!
//! - Renewals and the ends of lost sessions are two lines of work; a storm of ends delays no renewal.
//! - Nothing is renewed for a run before the registry has begun it on the record.
//! - A store that is away costs nothing but the view of the peers ([`Watch::failed`]): this node serves on, unless the
//!   witness tells that it alone is cut off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};

use crate::ids::{NodeId, Run};
use crate::metrics::Metrics;
use crate::registry::messages::{Begun, Fenced};
use crate::store::live::link::RedisLink;
use crate::store::postgres::PostgresStore;
use crate::store::{Peer, PeerState, StoreError};
use crate::time::{Mono, Timestamp};

use super::lease::{Verdict, Watch};
use super::witness::Witness;

/// Renewals in one lease: one that is late, or lost, is no cause for alarm.
const RENEWALS: u32 = 10;
/// Sessions ended in one transaction: a tenth of a second, in which the starts of the living wait for the same lock.
const REAP: usize = 2_000;
const MAILBOX: usize = 64;
/// Where each node notes in Redis when it last renewed.
const RENEWALS_KEY: &str = "lastpong:renewals";

pub struct Parts {
    pub store: PostgresStore,
    pub node_id: NodeId,
    pub lease: Duration,
    pub fenced: Recipient<Fenced>,
    /// Where the nodes tell each other that they have renewed.
    pub witness: Option<RedisLink>,
    pub metrics: Arc<Metrics>,
}

pub struct Membership {
    parts: Parts,
    run: Option<Run>,
    /// Until the root knows.
    fenced: Option<Run>,
    watch: Watch,
    witness: Witness,
    renewing: bool,
    reaping: bool,
}

impl Membership {
    pub fn new(parts: Parts) -> Self {
        let watch = Watch::new(parts.node_id.clone(), parts.lease);
        let witness = Witness::new(parts.lease);
        Self { parts, run: None, fenced: None, watch, witness, renewing: false, reaping: false }
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        self.tell_fenced();
        let Some(run) = self.run.clone().filter(|_| !self.renewing) else { return };
        self.renewing = true;
        let (store, metrics, asked) = (self.parts.store.clone(), self.parts.metrics.clone(), Mono::now());
        let work = async move { (metrics.timed("sql", "renew", store.renew(&run)).await, run) };
        ctx.spawn(work.into_actor(self).map(move |(renewed, run), this, ctx| {
            this.renewing = false;
            if this.run.as_ref() != Some(&run) {
                return;
            }
            match renewed {
                Ok(peers) => {
                    this.witness.renewed(Mono::now());
                    this.tell_witness(ctx);
                    this.judge(asked, &peers, &run, ctx);
                }
                Err(StoreError::Fenced) => this.fenced(run),
                Err(error @ StoreError::NameTaken) => {
                    // To be born again would be to fence the other, and so on by turns.
                    log::error!(error:% = error; "this node cannot go on");
                    ctx.stop();
                }
                Err(error) => {
                    log::debug!(error:% = error; "the lease was not renewed");
                    this.watch.failed();
                    if this.witness.is_worth_asking(Mono::now()) {
                        this.ask_witness(run, ctx);
                    }
                }
            }
        }));
    }

    fn fenced(&mut self, run: Run) {
        self.watch.failed();
        self.run = None;
        self.fenced = Some(run);
        self.tell_fenced();
    }

    /// Where the root has no room, again at the next turn.
    fn tell_fenced(&mut self) {
        self.fenced =
            self.fenced.take().filter(|run| self.parts.fenced.try_send(Fenced(run.clone())).is_err());
    }

    fn tell_witness(&self, ctx: &mut Context<Self>) {
        let Some(redis) = self.parts.witness.clone() else { return };
        let mut tell = redis::cmd("HSET");
        // Compared with what this node itself has told before, and with nothing else.
        tell.arg(RENEWALS_KEY).arg(self.parts.node_id.as_str()).arg(Timestamp::now().0);
        // Gone with the last node.
        let mut keep = redis::cmd("EXPIRE");
        keep.arg(RENEWALS_KEY).arg(self.parts.lease.as_secs().saturating_mul(10).max(60));
        ctx.spawn(
            async move { _ = redis.ask_all::<i64>("witness", vec![tell, keep]).await }.into_actor(self),
        );
    }

    fn ask_witness(&self, run: Run, ctx: &mut Context<Self>) {
        let Some(redis) = self.parts.witness.clone() else { return };
        let mut ask = redis::cmd("HGETALL");
        ask.arg(RENEWALS_KEY);
        let asked = async move { redis.ask::<HashMap<String, i64>>("witness", ask).await };
        ctx.spawn(asked.into_actor(self).map(move |said, this, _| {
            let own = this.parts.node_id.as_str();
            let peers: Vec<_> = said
                .unwrap_or_default()
                .into_iter()
                .filter(|(name, _)| name != own)
                .filter_map(|(name, count)| Some((name.parse().ok()?, count)))
                .collect();
            if this.run.as_ref() == Some(&run) && this.witness.said(Mono::now(), &peers) {
                log::error!("this node alone is cut off from the SQL store, for longer than its lease");
                this.fenced(run);
            }
        }));
    }

    fn judge(&mut self, asked: Mono, peers: &[Peer], run: &Run, ctx: &mut Context<Self>) {
        for (state, is) in [
            ("live", (|s| *s == PeerState::Live) as fn(&PeerState) -> bool),
            ("lost", |s| matches!(s, PeerState::Lost { .. })),
            ("gone", |s| *s == PeerState::Gone),
        ] {
            let count = peers.iter().filter(|peer| is(&peer.state)).count();
            self.parts.metrics.peers.with_label_values(&[state]).set(count as i64);
        }
        let verdicts = self.watch.renewed(asked, Mono::now(), peers);
        if verdicts.is_empty() || self.reaping {
            return;
        }
        self.reaping = true;
        let (store, metrics, run) = (self.parts.store.clone(), self.parts.metrics.clone(), run.clone());
        let work = async move {
            for verdict in verdicts {
                if let Err(error) = carry_out(&store, &metrics, &run, &verdict).await {
                    log::warn!(error:% = error, verdict:? = verdict; "a lost node is not seen to yet");
                }
            }
        };
        ctx.spawn(work.into_actor(self).map(|(), this, _| this.reaping = false));
    }
}

async fn carry_out(
    store: &PostgresStore,
    metrics: &Metrics,
    run: &Run,
    verdict: &Verdict,
) -> Result<(), StoreError> {
    let lost = match verdict {
        Verdict::Lost(peer) => {
            if store.declare_lost(run, peer).await?.is_none() {
                return Ok(());
            }
            log::error!(node_id:% = peer.run.node_id, incarnation:% = peer.run.incarnation;
                "this node's lease is over: it is declared lost");
            &peer.run.node_id
        }
        Verdict::Adopt(node_id) if !store.adopt(run, node_id).await? => return Ok(()),
        Verdict::Adopt(node_id) | Verdict::Reap(node_id) => node_id,
    };
    let mut ended = 0;
    loop {
        let ends = metrics.timed("sql", "reap", store.reap(run, lost, Timestamp::now(), REAP)).await?;
        if ends.is_empty() {
            break;
        }
        metrics.count_ends(&ends);
        ended += ends.len();
    }
    log::warn!(node_id:% = lost, sessions = ended; "ended what a lost node held, as node_lost");
    Ok(())
}

/// Makes sure that nobody else goes by this node's name, which takes a lease where somebody else did until lately. A
/// store that is away cannot tell.
///
/// # Errors
/// One does.
pub async fn take_name(store: &PostgresStore, lease: Duration) -> Result<(), StoreError> {
    let began = Mono::now();
    let mut seen = None;
    while let Ok(Some(renewals)) = store.rival().await {
        if seen.is_some_and(|seen| seen != renewals) {
            return Err(StoreError::NameTaken);
        }
        seen = Some(renewals);
        if Mono::now().since(began) > lease {
            break;
        }
        tokio::time::sleep(lease / RENEWALS).await;
    }
    Ok(())
}

impl Actor for Membership {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(self.parts.lease / RENEWALS, |this, ctx| this.renew(ctx));
    }
}

/// A write was refused: what of it is for the lease to say.
impl Handler<Fenced> for Membership {
    type Result = ();

    fn handle(&mut self, _: Fenced, ctx: &mut Self::Context) {
        self.renew(ctx);
    }
}

impl Handler<Begun> for Membership {
    type Result = ();

    fn handle(&mut self, Begun(run): Begun, ctx: &mut Self::Context) {
        self.run = Some(run);
        self.renew(ctx);
    }
}
