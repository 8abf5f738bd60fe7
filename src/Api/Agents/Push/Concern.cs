using Fleet.Data;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents.Push;

/// <summary>
/// What concerns a host: the VMs it owns, and those that migrate from or to it. After a restore from backup also what it stated to
/// hold: while that is quarantined, and where a guest of its is another's now. And what an override took from it: if the host was not
/// dead after all, its agent learns here that it must stop the guest (GATE.md, "Fence").
/// </summary>
internal sealed class Concern
{
    private readonly string _host;
    private readonly HashSet<string> _fenced;

    // Of the present store epoch: a new one begins without any. The value: it stated a live guest.
    private readonly Dictionary<string, bool> _stated;

    private Concern(string host, Dictionary<string, MigrationRow> moving, Dictionary<string, bool> stated, HashSet<string> fenced) =>
        (_host, Moving, _stated, _fenced) = (host, moving, stated, fenced);

    /// <summary>Active migrations from or to the host, by VM.</summary>
    public IReadOnlyDictionary<string, MigrationRow> Moving { get; }

    /// <summary>VMs besides its own that may concern it.</summary>
    public IEnumerable<string> Vms => Moving.Keys.Union(_stated.Keys).Union(_fenced);

    /// <param name="vm">Only as far as this VM goes; null for all.</param>
    public static async Task<Concern> OfAsync(FleetDbContext db, string host, string? vm, CancellationToken cancellationToken)
    {
        var moving = await db.Migrations.Where(MigrationRow.Active)
            .Where(row => (row.SourceHost == host || row.TargetHost == host) && (vm == null || row.Vm == vm))
            .ToDictionaryAsync(row => row.Vm, StringComparer.Ordinal, cancellationToken);
        var stated = await db.Statements.Where(row => row.Host == host && (vm == null || row.Vm == vm))
            .ToDictionaryAsync(row => row.Vm, row => row.Live, StringComparer.Ordinal, cancellationToken);
        var fenced = await db.Placements.Where(row => row.Host == host && row.Fenced && (vm == null || row.Vm == vm))
            .Select(row => row.Vm)
            .ToListAsync(cancellationToken);
        return new Concern(host, moving, stated, [.. fenced]);
    }

    public bool Has(VmRow vm) =>
        vm.Host == _host || Moving.ContainsKey(vm.Id) || _fenced.Contains(vm.Id)
        || (_stated.TryGetValue(vm.Id, out var live) && (live || vm.Quarantined));
}
