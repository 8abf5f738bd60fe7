using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Placement;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents.Push;

/// <summary>What concerns a host: the VMs it owns, and those of <see cref="Concerned"/>.</summary>
internal sealed class Concern
{
    private readonly string _host;
    private readonly HashSet<string> _others;

    private Concern(string host, Dictionary<string, MigrationRow> moving, IEnumerable<string> others) =>
        (_host, Moving, _others) = (host, moving, [.. moving.Keys, .. others]);

    /// <summary>Active migrations from or to the host, by VM.</summary>
    public IReadOnlyDictionary<string, MigrationRow> Moving { get; }

    /// <summary>VMs that concern it, besides its own.</summary>
    public IEnumerable<string> Vms => _others;

    /// <param name="vm">Only as far as this VM goes; null for all.</param>
    public static async Task<Concern> OfAsync(FleetDbContext db, string host, string? vm, CancellationToken cancellationToken)
    {
        var moving = await Concerned.Moving(db)
            .Where(row => (row.SourceHost == host || row.TargetHost == host) && (vm == null || row.Vm == vm))
            .ToDictionaryAsync(row => row.Vm, StringComparer.Ordinal, cancellationToken);
        var stated = Concerned.Stated(db).Where(row => row.Host == host && (vm == null || row.Vm == vm)).Select(row => row.Vm);
        var fenced = Concerned.Fenced(db).Where(row => row.Host == host && (vm == null || row.Vm == vm)).Select(row => row.Vm);
        return new Concern(host, moving, await stated.Concat(fenced).ToListAsync(cancellationToken));
    }

    public bool Has(VmRow vm) => vm.Host == _host || _others.Contains(vm.Id);
}
