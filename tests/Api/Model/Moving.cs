using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;

namespace Fleet.Api.Tests.Model;

/// <summary>The model's active migration.</summary>
/// <param name="source">Null where the VM is parked.</param>
/// <param name="target">Null for a park.</param>
internal sealed class Moving(string id, string? source, string? target)
{
    public string Id { get; } = id;

    public string? Source { get; } = source;

    public string? Target { get; } = target;

    public string State { get; set; } = target is null ? MigrationStates.Switching : MigrationStates.Preparing;

    public bool IsSealed { get; set; }

    /// <summary>The instance that a seal which counts named.</summary>
    public string? Seal { get; set; }

    public GateAck? Ack { get; set; }

    public long AckIncarnation { get; set; }

    public bool IsFenced { get; set; }

    public bool Lifted { get; set; }
}
