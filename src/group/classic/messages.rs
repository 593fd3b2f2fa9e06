//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: what a member says, what the coordinator
//! answers, and both on the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages as kp;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::protocol::StrBytes;

use crate::error::Result;
use crate::group::call::GroupCall;
use crate::wire::str_bytes;

/// The first version of JoinGroup and LeaveGroup with a reason (KIP-800).
const JOIN_REASON: i16 = 8;
const LEAVE_REASON: i16 = 5;
/// The first version of SyncGroup that says which protocol it is about (KIP-559).
const SYNC_PROTOCOL: i16 = 5;
/// By so much an answer to JoinGroup may be later than the rebalance that it waits for, as in
/// Java.
const JOIN_LATENESS: Duration = Duration::from_secs(5);

/// The member in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Empty before the coordinator gave one.
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    /// -1 before the member is in a generation.
    pub(crate) generation: i32,
}

/// Asks to be in the group's next generation. Waits at the coordinator until all have asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinGroup {
    pub(crate) sender: Sender,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: &'static str,
    /// What the member can do, in order of preference, with what it says about itself for each.
    pub(crate) protocols: Vec<(Arc<str>, Bytes)>,
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct JoinAnswer {
    pub(crate) code: i16,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol: Arc<str>,
    pub(crate) leader: Arc<str>,
    pub(crate) member_id: Arc<str>,
    /// A static leader has come back: nothing is to be assigned (KIP-814).
    pub(crate) skip_assignment: bool,
    /// For the leader.
    pub(crate) members: Vec<JoinedMember>,
}

/// What the leader hears of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) metadata: Bytes,
}

/// Asks for what the leader assigned; the leader's says it. Waits at the coordinator for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncGroup {
    pub(crate) sender: Sender,
    pub(crate) protocol_type: &'static str,
    pub(crate) protocol: Arc<str>,
    /// What each member gets; empty but from the leader.
    pub(crate) assignments: Vec<(Arc<str>, Bytes)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SyncAnswer {
    pub(crate) code: i16,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) sender: Sender,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaveGroup {
    pub(crate) sender: Sender,
    pub(crate) reason: &'static str,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i16);

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

fn text(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

impl Sender {
    fn member_id(&self) -> StrBytes {
        str_bytes(&self.member_id)
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.instance_id.as_ref().map(|id| str_bytes(id))
    }
}

impl GroupCall for JoinGroup {
    type Wire = kp::JoinGroupRequest;
    type Answer = JoinAnswer;

    fn build(&self, group: &str, version: i16) -> Result<Self::Wire> {
        let protocols = self.protocols.iter().map(|(name, metadata)| {
            JoinGroupRequestProtocol::default()
                .with_name(str_bytes(name))
                .with_metadata(metadata.clone())
        });
        let reason = (version >= JOIN_REASON).then(|| str_bytes(self.reason));
        Ok(kp::JoinGroupRequest::default()
            .with_group_id(kp::GroupId(str_bytes(group)))
            .with_session_timeout_ms(millis(self.session_timeout))
            .with_rebalance_timeout_ms(millis(self.rebalance_timeout))
            .with_member_id(self.sender.member_id())
            .with_group_instance_id(self.sender.instance_id())
            .with_protocol_type(str_bytes(self.protocol_type))
            .with_protocols(protocols.collect())
            .with_reason(reason))
    }

    fn read(&self, _: i16, response: kp::JoinGroupResponse) -> Result<JoinAnswer> {
        let members = response.members.iter().map(|member| JoinedMember {
            id: text(&member.member_id),
            instance_id: member.group_instance_id.as_ref().map(text),
            metadata: member.metadata.clone(),
        });
        Ok(JoinAnswer {
            code: response.error_code,
            generation: response.generation_id,
            protocol_type: response.protocol_type.as_ref().map(text),
            protocol: response
                .protocol_name
                .as_ref()
                .map(text)
                .unwrap_or_default(),
            leader: text(&response.leader),
            member_id: text(&response.member_id),
            skip_assignment: response.skip_assignment,
            members: members.collect(),
        })
    }

    fn wait(&self) -> Duration {
        self.rebalance_timeout + JOIN_LATENESS
    }
}

impl GroupCall for SyncGroup {
    type Wire = kp::SyncGroupRequest;
    type Answer = SyncAnswer;

    fn build(&self, group: &str, version: i16) -> Result<Self::Wire> {
        let assignments = self.assignments.iter().map(|(id, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(str_bytes(id))
                .with_assignment(assignment.clone())
        });
        let tells = version >= SYNC_PROTOCOL;
        Ok(kp::SyncGroupRequest::default()
            .with_group_id(kp::GroupId(str_bytes(group)))
            .with_generation_id(self.sender.generation)
            .with_member_id(self.sender.member_id())
            .with_group_instance_id(self.sender.instance_id())
            .with_protocol_type(tells.then(|| str_bytes(self.protocol_type)))
            .with_protocol_name(tells.then(|| str_bytes(&self.protocol)))
            .with_assignments(assignments.collect()))
    }

    fn read(&self, _: i16, response: kp::SyncGroupResponse) -> Result<SyncAnswer> {
        Ok(SyncAnswer {
            code: response.error_code,
            protocol: response.protocol_name.as_ref().map(text),
            assignment: response.assignment,
        })
    }
}

impl GroupCall for Heartbeat {
    type Wire = kp::HeartbeatRequest;
    type Answer = Code;

    fn build(&self, group: &str, _: i16) -> Result<Self::Wire> {
        Ok(kp::HeartbeatRequest::default()
            .with_group_id(kp::GroupId(str_bytes(group)))
            .with_generation_id(self.sender.generation)
            .with_member_id(self.sender.member_id())
            .with_group_instance_id(self.sender.instance_id()))
    }

    fn read(&self, _: i16, response: kp::HeartbeatResponse) -> Result<Code> {
        Ok(Code(response.error_code))
    }
}

impl GroupCall for LeaveGroup {
    type Wire = kp::LeaveGroupRequest;
    type Answer = ();

    fn build(&self, group: &str, version: i16) -> Result<Self::Wire> {
        let reason = (version >= LEAVE_REASON).then(|| str_bytes(self.reason));
        let member = MemberIdentity::default()
            .with_member_id(self.sender.member_id())
            .with_group_instance_id(self.sender.instance_id())
            .with_reason(reason);
        Ok(kp::LeaveGroupRequest::default()
            .with_group_id(kp::GroupId(str_bytes(group)))
            .with_members(vec![member]))
    }

    /// Whatever it says, the member has left as far as it can.
    fn read(&self, _: i16, _: kp::LeaveGroupResponse) -> Result<()> {
        Ok(())
    }
}
