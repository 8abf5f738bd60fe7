using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm;

/// <summary>What a machine is made of.</summary>
/// <param name="HandoffPath">The agent's socket; null to run alone.</param>
/// <param name="Barrier">The guest runs only after the agent's permission. Always so with <paramref name="Incoming"/>.</param>
/// <param name="Incoming">Where the guest's RAM will come in; null for a guest that starts here.</param>
/// <param name="Unprotected">An incoming guest needs no permission: for negative controls.</param>
/// <param name="Vcpu"><see cref="KvmVirtualCpu.KindName"/> or <see cref="SoftwareVirtualCpu.KindName"/>.</param>
public sealed record MachineOptions(
    string Vm,
    IReadOnlyList<MemoryRange> Layout,
    string? HandoffPath = null,
    bool Barrier = false,
    MigrationEndpoint? Incoming = null,
    string Vcpu = KvmVirtualCpu.KindName,
    StreamLimits? Limits = null,
    bool Unprotected = false,
    MemoryBacking Backing = MemoryBacking.Memfd);
