using System.Text.Json;
using Fleet.Api.Migrations;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Agents.Push;

/// <summary>A VM that concerns a host, with its active migration: the host owns it, or is the migration's source or target.</summary>
public sealed record DesiredRow(VmRow Vm, MigrationRow? Moving)
{
    public DesiredMigration? Migration => Moving is null ? null : new DesiredMigration(
        Moving.Id,
        Moving.State,
        Moving.SourceHost,
        Moving.TargetHost,
        MigrationColumns.AttachOf(Moving.Attach),
        Moving.ReturnWanted,
        MigrationColumns.PermitOf(Moving));

    /// <summary>How that host's agent reaches the VMM: source and target each have their own.</summary>
    public VmAttach AttachOf(string host)
    {
        var json = Moving?.TargetHost == host ? Moving.Attach
            : Moving?.SourceHost == host ? Moving.SourceAttach ?? Vm.Attach
            : Vm.Attach;
        return JsonSerializer.Deserialize(json!, FleetJson.Default.VmAttach)!;
    }
}
