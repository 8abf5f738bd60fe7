namespace Fleet.Api.OpenApi;

/// <summary>
/// What members and parameters mean that have the same meaning wherever they stand. A comment on the wire record says more and comes
/// first; a name with its schema in front comes before the name alone.
/// </summary>
internal static class Descriptions
{
    private static readonly Dictionary<string, string> Texts = new(StringComparer.Ordinal)
    {
        ["access"] = "For a hit: `read`, `write`, `fetch` or `unknown`.",
        ["agentVersion"] = "Version of the agent that claimed the host last; null before the first claim.",
        ["attach"] = "How the host's agent reaches the VMM's memory.",
        ["bootId"] = "Boot id of the host's kernel.",
        ["capabilities"] = "What the agent found that the host can do, name to value; null before the first claim.",
        ["class"] = "`srar`, `srao`, `ucna` or `unknown` (Intel SDM volume 3, 16.6).",
        ["count"] = "How many there were; repetitions are one item.",
        ["createdAt"] = "When it was made, by the server's clock.",
        ["credentialId"] = "Id of the credential, 16 lower-case hex digits; no secret.",
        ["detail"] = "What exactly, as text for people; not stable.",
        ["detectedAt"] = "When the error was seen first.",
        ["evidence"] = "For a hit, what showed it: `uffd`, `kvm-page-fault`, `user-page-fault`, `vmm` or `qmp`.",
        ["expiresAt"] = "Until when it is good, by the server's clock.",
        ["firstAt"] = "The first time.",
        ["frame"] = "Guest frame number, in 4 KiB units.",
        ["generation"] = "Generation of the VM's poisoned set: the newest change to it. Only grows.",
        ["guestPhysicalAddress"] = "Guest physical address, in bytes, as a hex string.",
        ["host"] = "Id of the host.",
        ["id"] = "Id of the resource, as its creator chose it.",
        ["incarnation"] = "As the claim of this agent process was answered; an older one is refused with `agent-superseded`.",
        ["items"] = "The items of this page.",
        ["kernel"] = "Kernel release of the host (uname -r); null before the first claim.",
        ["lastAt"] = "The last time.",
        ["lastSeenAt"] = "When the agent was heard last, by the server's clock; coarse across a restart of the server; null before the first time.",
        ["memory"] = "Guest RAM, region by region.",
        ["memoryInstance"] = "One life of the guest's RAM: a cold reset or rebuild starts a new one.",
        ["migration"] = "Id of the migration.",
        ["name"] = "What it is for.",
        ["next"] = "Opaque cursor for `after`; null on the last page.",
        ["outcome"] = "For a hit, what came of it: `mce-injected`, `vm-killed`, `blocked` or `unknown`.",
        ["permit"] = "The right to resume on the target; null until it is granted.",
        ["placementEpoch"] = "Fencing token of the VM's placement: changes whenever ownership moves.",
        ["reason"] = "Why; kept in the audit trail. At most 1,000 characters.",
        ["revokedAt"] = "When it was revoked; null while it is not.",
        ["scopes"] = "What it may do.",
        ["sequence"] = "Position in the agent's spool, from 1.",
        ["shift"] = "Size of the page as a power of two: 12 (4 KiB), 21 (2 MiB) or 30 (1 GiB).",
        ["source"] = "`vmm`, `memory-failure`, `operator` or `import`.",
        ["sourceHost"] = "Host that owns the VM; null where it is parked.",
        ["targetHost"] = "Host to which the VM goes.",
        ["token"] = "Id of the token, 16 lower-case hex digits.",
        ["vcpu"] = "Number of the virtual CPU that made the first access; null when it is not known.",
        ["vm"] = "Id of the VM.",

        ["AddPagesRequest.pages"] = "The pages, at most 10,000.",
        ["AddPagesRequest.reason"] = "Why, for the audit trail; null when there is nothing to say.",
        ["ChangeResource.at"] = "When it was committed, by the server's clock.",
        ["ChangeResource.data"] = "What the kind carries, as JSON; null when it carries nothing, or the token may not see it.",
        ["EnrollRequest.joinToken"] = "The join token, as it was shown once.",
        ["GateObstacle.code"] = "Stable code, such as `not-attached`, `layout-mismatch`, `busy-userfaultfd` or `device-dma`.",
        ["HeartbeatRequest.vms"] = "Every VM that the agent knows, with what it has confirmed.",
        ["HitResource.count"] = "Accesses that this item stands for.",
        ["HitResource.firstAt"] = "When the first of these accesses was seen.",
        ["HitResource.frame"] = "Guest frame that was accessed, in 4 KiB units.",
        ["HitResource.host"] = "Host on which it was seen.",
        ["HitResource.id"] = "Number of the item; grows.",
        ["HitResource.lastAt"] = "When the last of these accesses was seen.",
        ["JoinTokenCreated.id"] = "Id of the join token, 16 lower-case hex digits; no secret.",
        ["JoinTokenResource.id"] = "Id of the join token, 16 lower-case hex digits; no secret.",
        ["PageResource.hosts"] = "What each host that it concerns enforces of it.",
        ["FaultResource.host"] = "Host whose memory it is.",
        ["FaultResource.kind"] = "`corrected` or `uncorrected`.",
        ["FaultResource.vm"] = "The VM that had the frame mapped when it was reported last; null when none had.",
        ["ParkRequest.sourceFenced"] = "Asserts that the source is dead and has not run since its state was saved; needs migrations:fence.",
        ["ProblemBody.detail"] = "What exactly, as text for people; left out when there is nothing more to say.",
        ["ProblemBody.status"] = "The HTTP status.",
        ["ProblemBody.title"] = "The kind of problem, as text for people.",
        ["ProblemBody.type"] = "URN of the kind of problem: `urn:fleet:problem:` and the code.",
        ["RebuildRequest.host"] = "The new owner.",
        ["StatementRequest.vms"] = "Every VM that the agent knows.",
        ["SwitchoverRequest.reason"] = "Why; needed with `sourceFenced`.",
        ["TokenCreated.id"] = "Id of the token, 16 lower-case hex digits; no secret.",
        ["TokenResource.id"] = "Id of the credential, 16 lower-case hex digits; no secret.",
        ["VmResource.host"] = "Host that owns the VM; null while it is parked.",
    };

    public static string? Of(string schema, string member) =>
        Texts.TryGetValue($"{schema}.{member}", out var own) ? own : Texts.GetValueOrDefault(member);

    /// <summary>Of a parameter in a path.</summary>
    public static string? OfParameter(string name) => Texts.GetValueOrDefault(name);

    /// <summary>What the operations of a tag are about.</summary>
    public static readonly IReadOnlyDictionary<string, string> Tags = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["Health"] = "Whether the server runs, and its figures.",
        ["VMs"] = "The VMs: where each runs, what its RAM looks like, and what its host enforces.",
        ["Pages"] = "The poisoned pages of a VM; they follow it to every host.",
        ["Migrations"] = "The gate: may this VM resume on the target?",
        ["Hosts"] = "The hosts, their agents, labels and drains.",
        ["Hits"] = "Intercepted accesses to poisoned pages.",
        ["Faults"] = "Memory errors of the hosts themselves, by DIMM; they stay with the host.",
        ["Changes"] = "The change log: audit trail and feed.",
        ["Security"] = "Tokens, join tokens and enrolment.",
        ["Agents"] = "What a host's own agent says and asks; good with that host's credential alone.",
    };
}
