namespace Fleet.Contracts.Hits;

/// <summary>An intercepted access to a poisoned page. Repeated accesses coalesce into one, with a count (I8).</summary>
/// <param name="Access"><c>read</c>, <c>write</c>, <c>fetch</c> or <c>unknown</c>.</param>
/// <param name="Evidence"><c>uffd</c>, <c>kvm-page-fault</c>, <c>user-page-fault</c>, <c>vmm</c> or <c>qmp</c>.</param>
/// <param name="Outcome"><c>mce-injected</c>, <c>vm-killed</c>, <c>blocked</c> or <c>unknown</c>.</param>
public sealed record HitResource(
    long Id,
    string Vm,
    long MemoryInstance,
    long Frame,
    string GuestPhysicalAddress,
    string Host,
    long PlacementEpoch,
    DateTimeOffset FirstAt,
    DateTimeOffset LastAt,
    long Count,
    string Access,
    int? Vcpu,
    string Evidence,
    string Outcome);

public static class HitAccesses
{
    public const string Read = "read";
    public const string Write = "write";
    public const string Fetch = "fetch";
    public const string Unknown = "unknown";

    public static bool IsValid(string text) => text is Read or Write or Fetch or Unknown;
}

public static class HitEvidences
{
    public const string Uffd = "uffd";
    public const string KvmPageFault = "kvm-page-fault";
    public const string UserPageFault = "user-page-fault";
    public const string Vmm = "vmm";
    public const string Qmp = "qmp";

    public static bool IsValid(string text) => text is Uffd or KvmPageFault or UserPageFault or Vmm or Qmp;
}

public static class HitOutcomes
{
    public const string MceInjected = "mce-injected";
    public const string VmKilled = "vm-killed";
    public const string Blocked = "blocked";
    public const string Unknown = "unknown";

    public static bool IsValid(string text) => text is MceInjected or VmKilled or Blocked or Unknown;
}
