using System.Collections.Concurrent;
using Fleet.Contracts;
using Fleet.Data;
using Fleet.Data.Entities;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Agents;

/// <summary>Digests of the desired sets, computed when asked for and kept until the generation moves.</summary>
public sealed class DigestCache
{
    private readonly ConcurrentDictionary<string, Entry> _digests = new(StringComparer.Ordinal);

    /// <param name="db">A context that sees the set as of the row's generation: the same snapshot, or the writer's.</param>
    public async ValueTask<string> OfAsync(FleetDbContext db, VmRow vm, CancellationToken cancellationToken) =>
        TryGet(vm) ?? Put(vm, await PagesOf(db, vm.Id).ToListAsync(cancellationToken));

    public string Put(VmRow vm, IReadOnlyList<PageKey> pages)
    {
        var digest = PoisonDigest.Compute(vm.Id, vm.MemoryInstance, pages);
        _digests[vm.Id] = new Entry(vm.MemoryInstance, vm.Generation, digest);
        return digest;
    }

    /// <summary>To be called after a VM was deleted. One that comes anew has other numbers, so nothing wrong can be kept.</summary>
    public void Forget(string vm) => _digests.TryRemove(vm, out _);

    public int Count => _digests.Count;

    public static IQueryable<PageKey> PagesOf(FleetDbContext db, string vm) =>
        db.Pages.Where(row => row.Vm == vm).OrderBy(row => row.Frame).Select(row => new PageKey(row.Frame, row.Shift));

    public string? TryGet(VmRow vm) =>
        _digests.TryGetValue(vm.Id, out var entry) && entry.MemoryInstance == vm.MemoryInstance && entry.Generation == vm.Generation
            ? entry.Digest
            : null;

    private sealed record Entry(long MemoryInstance, long Generation, string Digest);
}
