using Fleet.Api.Lists;
using Fleet.Api.Pages;
using Fleet.Api.Restore;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests.Simulation;

/// <summary>What befalls hosts, memory and the store.</summary>
internal sealed partial class SimulatedFleet
{
    private bool _hasBackup;

    private static void Power(SimulatedHost host)
    {
        if (host.IsPowered)
        {
            host.PowerOff();
        }
        else
        {
            host.PowerOn();
        }
    }

    private void Write(long frame)
    {
        if (Running?.Vmm is { } vmm)
        {
            _guest.Write(vmm, frame);
        }
    }

    /// <summary>The host's memory fails under a VMM, that has no RAM yet, stands still, or runs.</summary>
    private static void Strike(SimulatedHost host, long frame, bool isDetected)
    {
        if (host.Vmm is { IsAlive: true } vmm && !vmm.IsMarked(frame))
        {
            vmm.Break(frame);
            if (isDetected)
            {
                vmm.Events.Add(frame);
            }
        }
    }

    private async Task AddAsync(long frame)
    {
        var request = new AddPagesRequest([new PageReport(frame, FrameMath.FrameShift)], null);
        await WriteAsync(scope => PageCommands.AddAsync(scope, _vm, request, "test"));
    }

    private async Task<bool> ClearAsync(long frame)
    {
        var (vm, _) = await StateAsync();
        var outcome = await WriteAsync(scope => PageCommands.ClearAsync(scope, _vm, frame, "test", "test", IfMatch.Absent));
        if (!outcome.IsRefused)
        {
            _guest.Forget(vm.MemoryInstance, frame);
            _image = null;
        }

        return !outcome.IsRefused;
    }

    /// <summary>I5: nothing of the VM is another for it.</summary>
    private async Task ReplayAsync(SimulatedHost host, int number)
    {
        var before = await FingerprintAsync();
        if (await host.ReplayAsync(number))
        {
            Assert.Equal(before, await FingerprintAsync());
        }
    }

    private async Task<string> FingerprintAsync()
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        var vm = await db.Vms.SingleAsync(row => row.Id == _vm);
        var pages = await db.Pages.Where(row => row.Vm == _vm).OrderBy(row => row.Frame).Select(row => new { row.Frame, row.Version }).ToListAsync();
        var migrations = await db.Migrations.Where(row => row.Vm == _vm).OrderBy(row => row.Id).Select(row => row.Version).ToListAsync();
        return $"{vm.Version} {vm.Generation} {vm.PlacementEpoch} [{string.Join(' ', pages)}] [{string.Join(' ', migrations)}]";
    }

    private void Backup()
    {
        File.Delete(_backup);
        StoreCopy.BackUp(Store, _backup);
        _hasBackup = true;
    }

    /// <summary>
    /// The backup is put back. By the verb: the epoch beside the database is ahead, and the start begins a new store epoch. Behind its back: the
    /// agents come back one after another, and the first that knows a number from the future proves it.
    /// </summary>
    private async Task<bool> RestoreAsync(bool isByVerb)
    {
        // Who puts a copy back behind its back must have all agents there to tell of it: one that is cut off may hold what it forgot.
        if (!_hasBackup || (!isByVerb && !_hosts.All(host => host.IsPowered && host.IsAgentUp)))
        {
            return false;
        }

        var before = StoreEpochs.Of(await RevisionAsync());
        await PutBackAsync();
        _generations.Clear();
        _epochs.Clear();
        Array.ForEach(_hosts, host => host.ForgetSent());
        if (isByVerb)
        {
            await File.WriteAllTextAsync(Store.EpochPath, FormattableString.Invariant($"{before + 1}\n"));
            await WriteAsync(scope => _services.GetRequiredService<StoreRestore>().BeginAsync(scope, 0, "system", "test"));
        }
        else
        {
            foreach (var host in _hosts)
            {
                host.Crash();
                await host.StartAgentAsync(-1);
            }

            Counts.Proofs += StoreEpochs.Of(await RevisionAsync()) > before ? 1 : 0;
        }

        Counts.Restores++;
        return true;
    }

    private StoreOptions Store => _services.GetRequiredService<IOptions<StoreOptions>>().Value;

    private async Task<long> RevisionAsync()
    {
        await using var db = _services.GetRequiredService<StoreContexts>().OpenReader();
        return await db.Counter.Select(row => row.Revision).SingleAsync();
    }

    // Into the file that the control plane has open, as one transaction: the same pages, without a new start for each. Its timers write
    // to it now and then, and the copy does not wait for them by itself.
    private async Task PutBackAsync()
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                using var source = new SqliteConnection($"Data Source={_backup};Mode=ReadOnly;Pooling=False");
                using var target = new SqliteConnection($"Data Source={Store.DatabasePath};Pooling=False");
                source.Open();
                target.Open();
                source.BackupDatabase(target);
                return;
            }
            catch (SqliteException exception) when (exception.SqliteErrorCode == SQLitePCL.raw.SQLITE_BUSY && tries < 500)
            {
                await Task.Delay(10);
            }
        }
    }
}
