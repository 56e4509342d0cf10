//! Between the records of `types` and the messages of `proto/`. The wire's strings are parsed here and nowhere
//! else; inside, ids are ids.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use types::{
    Assignment, AssignmentKind, Callback, Executable, ExecutableType, Execution, ExecutionStatus, Fault, LogLine,
    LogStream, Node, NodeId, NodeResource, Progress, Reason, Task, TaskPriority, TaskStatus, Timestamp, Usage,
    node::port,
};

use crate::{
    control::{ExecutionReport, NewExecution, Registration},
    proto::{sms, v1},
};

fn map(from: &BTreeMap<String, String>) -> HashMap<String, String> {
    from.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A node for the wire; times in seconds.
pub fn node(node: &Node) -> sms::Node {
    sms::Node {
        uuid: node.id.to_string(),
        ip_address: node.ip_address.clone(),
        port: i32::from(node.port),
        status: node.status().to_owned(),
        last_heartbeat: node.last_heartbeat.seconds(),
        registered_at: node.registered_at.seconds(),
        metadata: map(&node.metadata),
        http_port: i32::from(node.http_port),
    }
}

/// A registration from the original's node message; an empty id is given a new one.
///
/// # Errors
/// Names the field.
pub fn registration_from(node: sms::Node) -> Result<Registration, Fault> {
    Ok(Registration {
        id: if node.uuid.is_empty() { NodeId::new() } else { node.uuid.parse().map_err(field("node.uuid"))? },
        ip_address: node.ip_address,
        port: port("node.port", i64::from(node.port))?,
        http_port: port("node.http_port", i64::from(node.http_port))?,
        metadata: node.metadata.into_iter().collect(),
    })
}

/// Renames the field that an id's parser blames.
fn field(name: &'static str) -> impl Fn(Fault) -> Fault {
    move |fault| match fault.errors.first() {
        Some(error) => Fault::invalid_field(name, error.detail.clone()),
        None => fault,
    }
}

/// A node's load for the wire.
pub fn resource(node: NodeId, from: &NodeResource) -> sms::NodeResource {
    sms::NodeResource {
        node_uuid: node.to_string(),
        cpu_usage_percent: from.cpu_usage_percent,
        memory_usage_percent: from.memory_usage_percent,
        total_memory_bytes: from.total_memory_bytes,
        used_memory_bytes: from.used_memory_bytes,
        available_memory_bytes: from.available_memory_bytes,
        disk_usage_percent: from.disk_usage_percent,
        total_disk_bytes: from.total_disk_bytes,
        used_disk_bytes: from.used_disk_bytes,
        network_rx_bytes_per_sec: from.network_rx_bytes_per_sec,
        network_tx_bytes_per_sec: from.network_tx_bytes_per_sec,
        load_average_1m: from.load_average_1m,
        load_average_5m: from.load_average_5m,
        load_average_15m: from.load_average_15m,
        updated_at: from.updated_at.seconds(),
        resource_metadata: map(&from.resource_metadata),
    }
}

/// A node's load from the wire; the time is the receiver's to set.
pub fn resource_from(from: sms::NodeResource) -> NodeResource {
    NodeResource {
        cpu_usage_percent: from.cpu_usage_percent,
        memory_usage_percent: from.memory_usage_percent,
        total_memory_bytes: from.total_memory_bytes,
        used_memory_bytes: from.used_memory_bytes,
        available_memory_bytes: from.available_memory_bytes,
        disk_usage_percent: from.disk_usage_percent,
        total_disk_bytes: from.total_disk_bytes,
        used_disk_bytes: from.used_disk_bytes,
        network_rx_bytes_per_sec: from.network_rx_bytes_per_sec,
        network_tx_bytes_per_sec: from.network_tx_bytes_per_sec,
        load_average_1m: from.load_average_1m,
        load_average_5m: from.load_average_5m,
        load_average_15m: from.load_average_15m,
        updated_at: Timestamp::default(),
        resource_metadata: from.resource_metadata.into_iter().collect(),
    }
}

/// An executable for the wire.
pub fn executable(from: &Executable) -> sms::TaskExecutable {
    sms::TaskExecutable {
        r#type: from.kind.tag(),
        uri: from.uri.clone(),
        name: from.name.clone(),
        checksum_sha256: from.checksum_sha256.clone(),
        args: from.args.clone(),
        env: map(&from.env),
    }
}

/// An executable from the wire; whether it makes sense is for the registry to say.
///
/// # Errors
/// An unknown type.
pub fn executable_from(from: sms::TaskExecutable) -> Result<Executable, Fault> {
    let kind = ExecutableType::from_tag(from.r#type)
        .ok_or_else(|| Fault::invalid_field("executable.type", format!("{} is not an ExecutableType", from.r#type)))?;
    Ok(Executable {
        kind,
        uri: from.uri,
        name: from.name,
        checksum_sha256: from.checksum_sha256,
        args: from.args,
        env: from.env.into_iter().collect(),
    })
}

/// A task for the wire, without what its runs left behind; times in seconds.
pub fn task(from: &Task) -> sms::Task {
    sms::Task {
        task_id: from.id.to_string(),
        name: from.name.clone(),
        description: from.description.clone(),
        status: from.status.tag(),
        priority: from.priority.tag(),
        node_uuid: from.node_uuid.map(|id| id.to_string()).unwrap_or_default(),
        endpoint: from.endpoint.clone(),
        version: from.version.clone(),
        capabilities: from.capabilities.clone(),
        registered_at: from.registered_at.seconds(),
        last_heartbeat: from.last_heartbeat.seconds(),
        metadata: map(&from.metadata),
        config: map(&from.config),
        executable: from.executable.as_ref().map(executable),
        ..sms::Task::default()
    }
}

/// A task from the wire.
///
/// # Errors
/// Names the field.
pub fn task_from(from: sms::Task) -> Result<Task, Fault> {
    let unknown = |field: &str, tag: i32| Fault::invalid_field(field, format!("{tag} is not a known number"));
    Ok(Task {
        id: from.task_id.parse()?,
        name: from.name,
        description: from.description,
        status: TaskStatus::from_tag(from.status).ok_or_else(|| unknown("status", from.status))?,
        priority: TaskPriority::from_tag(from.priority).ok_or_else(|| unknown("priority", from.priority))?,
        node_uuid: optional(&from.node_uuid)?,
        endpoint: from.endpoint,
        version: from.version,
        capabilities: from.capabilities,
        registered_at: Timestamp(from.registered_at.saturating_mul(1000)),
        last_heartbeat: Timestamp(from.last_heartbeat.saturating_mul(1000)),
        metadata: from.metadata.into_iter().collect(),
        config: from.config.into_iter().collect(),
        executable: from.executable.map(executable_from).transpose()?,
    })
}

/// An id that may be left empty.
fn optional<I: std::str::FromStr<Err = Fault>>(text: &str) -> Result<Option<I>, Fault> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// The number of a status.
pub fn status(from: ExecutionStatus) -> v1::ExecutionStatus {
    match from {
        ExecutionStatus::Pending => v1::ExecutionStatus::Pending,
        ExecutionStatus::Running => v1::ExecutionStatus::Running,
        ExecutionStatus::Completed => v1::ExecutionStatus::Completed,
        ExecutionStatus::Failed => v1::ExecutionStatus::Failed,
        ExecutionStatus::Cancelled => v1::ExecutionStatus::Cancelled,
        ExecutionStatus::Timeout => v1::ExecutionStatus::Timeout,
        ExecutionStatus::Lost => v1::ExecutionStatus::Lost,
    }
}

/// The status of a number; none for UNSPECIFIED.
///
/// # Errors
/// An unknown number.
pub fn status_from(tag: i32) -> Result<Option<ExecutionStatus>, Fault> {
    Ok(match v1::ExecutionStatus::try_from(tag) {
        Ok(v1::ExecutionStatus::Unspecified) => None,
        Ok(v1::ExecutionStatus::Pending) => Some(ExecutionStatus::Pending),
        Ok(v1::ExecutionStatus::Running) => Some(ExecutionStatus::Running),
        Ok(v1::ExecutionStatus::Completed) => Some(ExecutionStatus::Completed),
        Ok(v1::ExecutionStatus::Failed) => Some(ExecutionStatus::Failed),
        Ok(v1::ExecutionStatus::Cancelled) => Some(ExecutionStatus::Cancelled),
        Ok(v1::ExecutionStatus::Timeout) => Some(ExecutionStatus::Timeout),
        Ok(v1::ExecutionStatus::Lost) => Some(ExecutionStatus::Lost),
        Err(_) => return Err(Fault::invalid_field("status", format!("{tag} is not an ExecutionStatus"))),
    })
}

/// An execution for the wire, without its result.
pub fn execution(from: &Execution) -> v1::Execution {
    let millis = |at: Option<Timestamp>| at.map_or(0, Timestamp::millis);
    v1::Execution {
        execution_id: from.id.to_string(),
        task_id: from.task_id.to_string(),
        node_uuid: from.node_uuid.map(|id| id.to_string()).unwrap_or_default(),
        attempt: from.attempt,
        first: from.first,
        status: status(from.status).into(),
        reason: from.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        message: from.message.clone(),
        created_at_ms: from.created_at.millis(),
        started_at_ms: millis(from.started_at),
        completed_at_ms: millis(from.completed_at),
        updated_at_ms: from.updated_at.millis(),
        timeout_ms: from.timeout_ms,
        exit_code: from.exit_code,
        usage: from.usage.map(usage),
        result_bytes: from.result_bytes,
        input_bytes: from.input_bytes,
        progress: from.progress.as_ref().map(|progress| v1::Progress {
            phase: progress.phase.clone(),
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        }),
        cancel_requested: from.cancel_requested,
        result: bytes::Bytes::new(),
        traceparent: from.traceparent.clone().unwrap_or_default(),
        callback: None,
    }
}

fn usage(from: Usage) -> v1::Usage {
    let (wall_us, cpu_us) = from.micros();
    let Usage { peak_memory_bytes, bytes_in, bytes_out, .. } = from;
    v1::Usage { wall_us, cpu_us, peak_memory_bytes, bytes_in, bytes_out }
}

fn usage_from(from: v1::Usage) -> Usage {
    let v1::Usage { wall_us, cpu_us, peak_memory_bytes, bytes_in, bytes_out } = from;
    let (wall, cpu) = (Duration::from_micros(wall_us), Duration::from_micros(cpu_us));
    Usage { wall, cpu, peak_memory_bytes, bytes_in, bytes_out }
}

/// How the telling of an end goes, for the wire.
pub fn callback(from: &Callback) -> v1::Callback {
    v1::Callback {
        url: from.url.clone(),
        status: from.status.as_str().to_owned(),
        tries: from.tries,
        last_error: from.last_error.clone().unwrap_or_default(),
        next_try_ms: from.next_try_at.map_or(0, Timestamp::millis),
    }
}

/// A time limit for the wire: 0 is none, so the shortest is a millisecond.
pub fn millis_of(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn moment(millis: i64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp(millis))
}

fn reason_from(word: &str) -> Result<Option<Reason>, Fault> {
    if word.is_empty() {
        return Ok(None);
    }
    Reason::from_word(word)
        .map(Some)
        .ok_or_else(|| Fault::invalid_field("reason", format!("{:?} is not a reason", types::id::clip(word))))
}

fn progress_from(from: v1::Progress) -> Progress {
    Progress { phase: from.phase, done_bytes: from.done_bytes, total_bytes: from.total_bytes }
}

/// An execution from the wire.
///
/// # Errors
/// Names the field.
pub fn execution_from(from: v1::Execution) -> Result<Execution, Fault> {
    let status = status_from(from.status)?
        .ok_or_else(|| Fault::invalid_field("status", "an execution has a status; it is unspecified"))?;
    Ok(Execution {
        id: from.execution_id.parse()?,
        task_id: from.task_id.parse()?,
        node_uuid: optional(&from.node_uuid)?,
        attempt: from.attempt,
        first: from.first,
        status,
        reason: reason_from(&from.reason)?,
        message: from.message,
        created_at: Timestamp(from.created_at_ms),
        started_at: moment(from.started_at_ms),
        completed_at: moment(from.completed_at_ms),
        updated_at: Timestamp(from.updated_at_ms),
        timeout_ms: from.timeout_ms,
        exit_code: from.exit_code,
        usage: from.usage.map(usage_from),
        result_bytes: from.result_bytes,
        input_bytes: from.input_bytes,
        progress: from.progress.map(progress_from),
        cancel_requested: from.cancel_requested,
        traceparent: Some(from.traceparent).filter(|text| !text.is_empty()),
        // The registry's own affair.
        callback_url: None,
        remembered: None,
    })
}

/// A run that an agent asks for, from the wire.
///
/// # Errors
/// Names the field.
pub fn new_execution_from(from: v1::CreateExecutionRequest) -> Result<NewExecution, Fault> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(NewExecution {
        task_id: from.task_id.parse()?,
        input: from.input,
        timeout: (from.timeout_ms > 0).then(|| Duration::from_millis(from.timeout_ms)),
        idempotency_key: given(from.idempotency_key),
        callback_url: given(from.callback_url),
        traceparent: given(from.traceparent),
    })
}

/// A node's report for the wire: the fields of an execution that a node knows.
pub fn report(from: ExecutionReport) -> v1::ReportExecutionRequest {
    let millis = |at: Option<Timestamp>| at.map_or(0, Timestamp::millis);
    v1::ReportExecutionRequest {
        node_uuid: from.node_uuid.to_string(),
        execution: Some(v1::Execution {
            execution_id: from.execution_id.to_string(),
            attempt: from.attempt,
            status: status(from.status).into(),
            reason: from.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            message: from.message,
            started_at_ms: millis(from.started_at),
            completed_at_ms: millis(from.completed_at),
            exit_code: from.exit_code,
            usage: from.usage.map(usage),
            result_bytes: from.result.len() as u64,
            result: from.result,
            progress: from.progress.map(|progress| v1::Progress {
                phase: progress.phase,
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
            }),
            ..v1::Execution::default()
        }),
    }
}

/// A node's report from the wire.
///
/// # Errors
/// Names the field.
pub fn report_from(from: v1::ReportExecutionRequest) -> Result<ExecutionReport, Fault> {
    let execution = from.execution.ok_or_else(|| Fault::invalid_field("execution", "is missing"))?;
    let status = status_from(execution.status)?
        .ok_or_else(|| Fault::invalid_field("execution.status", "a report has a status; it is unspecified"))?;
    Ok(ExecutionReport {
        execution_id: execution.execution_id.parse()?,
        attempt: execution.attempt,
        node_uuid: from.node_uuid.parse()?,
        status,
        reason: reason_from(&execution.reason)?,
        message: execution.message,
        started_at: moment(execution.started_at_ms),
        completed_at: moment(execution.completed_at_ms),
        exit_code: execution.exit_code,
        usage: execution.usage.map(usage_from),
        result: execution.result,
        progress: execution.progress.map(progress_from),
    })
}

/// A log line for the wire.
pub fn log_line(from: &LogLine) -> v1::LogLine {
    v1::LogLine {
        ts_ms: from.ts_ms,
        seq: from.seq,
        stream: from.stream.as_str().to_owned(),
        level: from.level.clone(),
        message: from.message.clone(),
        raw_base64: from.raw_base64.clone().unwrap_or_default(),
        unterminated: from.unterminated,
    }
}

/// A log line from the wire.
///
/// # Errors
/// An unknown stream.
pub fn log_line_from(from: v1::LogLine) -> Result<LogLine, Fault> {
    let stream = LogStream::from_word(&from.stream).ok_or_else(|| {
        let word = types::id::clip(&from.stream);
        Fault::invalid_field("lines.stream", format!("{word:?} is none of stdout, stderr, system"))
    })?;
    let v1::LogLine { ts_ms, seq, level, message, raw_base64, unterminated, .. } = from;
    let raw_base64 = Some(raw_base64).filter(|raw| !raw.is_empty());
    Ok(LogLine { ts_ms, seq, stream, level, message, raw_base64, unterminated })
}

/// An assignment for the wire.
pub fn assignment(from: &Assignment) -> v1::Assignment {
    let kind = match from.kind {
        AssignmentKind::Create => v1::AssignmentKind::Create,
        AssignmentKind::Run => v1::AssignmentKind::Run,
        AssignmentKind::Cancel => v1::AssignmentKind::Cancel,
    };
    v1::Assignment {
        node_uuid: from.node_uuid.to_string(),
        task_id: from.task_id.to_string(),
        execution_id: from.execution_id.map(|id| id.to_string()).unwrap_or_default(),
        attempt: from.attempt,
        kind: kind.into(),
        at_ms: from.at.millis(),
    }
}

/// An assignment from the wire.
///
/// # Errors
/// Names the field.
pub fn assignment_from(from: v1::Assignment) -> Result<Assignment, Fault> {
    let kind = match v1::AssignmentKind::try_from(from.kind) {
        Ok(v1::AssignmentKind::Create) => AssignmentKind::Create,
        Ok(v1::AssignmentKind::Run) => AssignmentKind::Run,
        Ok(v1::AssignmentKind::Cancel) => AssignmentKind::Cancel,
        Ok(v1::AssignmentKind::Unspecified) | Err(_) => {
            return Err(Fault::invalid_field("kind", format!("{} is not an AssignmentKind", from.kind)));
        }
    };
    Ok(Assignment {
        node_uuid: from.node_uuid.parse()?,
        task_id: from.task_id.parse()?,
        execution_id: optional(&from.execution_id)?,
        attempt: from.attempt,
        kind,
        at: Timestamp(from.at_ms),
    })
}
