using System.Text.Json.Serialization;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.State;

/// <summary>What a new agent process needs to take an attached VMM over again.</summary>
/// <param name="Userfaultfd">The userfaultfd's number in the VMM.</param>
/// <param name="Trapped">Frames that may carry a marker: written before the first of them is armed.</param>
/// <param name="HasBarrier">The VMM takes part in the barrier.</param>
/// <param name="IncomingFor">Migration for which the process was started, until its permit is used.</param>
/// <param name="MayHaveRun">Its guest ran already when it was first attached.</param>
/// <param name="Reported">Frames of memory errors that are the VM's, from before their report is spooled until the desired set has them.</param>
/// <param name="WholeRegions">All of its memory is registered, and not only what is armed.</param>
/// <param name="Undelivered">Holes that the stream left, until the permit is used.</param>
/// <param name="Kind">How it was attached: it says what can be done to the process without its help.</param>
public sealed record AttachmentRecord(
    string Vm,
    long MemoryInstance,
    ProcessIdentity Vmm,
    int Userfaultfd,
    IReadOnlyList<RegionRecord> Regions,
    IReadOnlyList<FrameRange> Trapped,
    bool HasBarrier = false,
    string? IncomingFor = null,
    IReadOnlyList<FrameRange>? Undelivered = null,
    bool MayHaveRun = false,
    IReadOnlyList<FrameRange>? Reported = null,
    bool WholeRegions = false,
    string Kind = AttachKinds.Handoff);

/// <param name="BackingNumber">The number of the memory's file in the VMM; null for anonymous memory.</param>
/// <param name="BackingInode">The file's inode: with its device tells it from a file that took its number later.</param>
/// <param name="BackingDevice">The file's device; null without a file, and in the records of agents that knew only memfds.</param>
public sealed record RegionRecord(
    ulong GuestPhysicalAddress,
    long Bytes,
    ulong HostVirtualAddress,
    int PageBytes,
    int? BackingNumber,
    ulong BackingInode,
    long BackingOffset,
    BackingKind BackingKind = BackingKind.Memfd,
    string? BackingDevice = null);

[JsonSerializable(typeof(AttachmentRecord))]
internal sealed partial class StateJson : JsonSerializerContext;
