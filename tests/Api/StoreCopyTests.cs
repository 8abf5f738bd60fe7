using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Pages;
using Fleet.Data.Storage;

namespace Fleet.Api.Tests;

/// <summary>The verbs backup and restore, on a real data folder.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class StoreCopyTests
{
    [Fact]
    [Trait("Invariant", "I2")]
    public async Task BackUp_FromARunningControlPlane_ThenRestore_QuarantinesAndTheUnionIsWhole()
    {
        using var folder = new TempFolder();
        var api = await ApiHost.StartAsync(folder);
        var a = await (await api.EnrolAsync("host-a")).ClaimAsync();
        var vm = await api.Admin.CreateVmAsync(GateWorld.Vm, "host-a");
        await api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(1, 12));
        StoreCopy.BackUp(Options(folder), folder.File("backup.db"));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(folder.File("backup.db")));
        await api.Admin.AddPagesAsync(GateWorld.Vm, new PageReport(2, 12));
        Assert.Throws<StoreException>(() => StoreCopy.BackUp(Options(folder), folder.File("backup.db")));

        await using var restored = await api.RestoreAsync(folder, folder.File("backup.db"));
        Assert.Equal([1], await restored.FramesAsync());
        await restored.AssertQuarantinedAsync();
        Assert.Equal(StatementStates.Pending, (await restored.HostAsync("host-a")).Statement);
        a = a.MoveTo(restored);
        await a.AssertMustStateAsync();
        await a.ClaimAndStateAsync(RestoreWorld.Statement(vm.MemoryInstance, 1, 2).Live(vm.PlacementEpoch, "boot-a:1:1"));

        var now = await restored.AssertOwnedAsync("host-a");
        Assert.True(StoreEpochs.Of(now.Generation) > 0);
        Assert.Equal([1, 2], await restored.FramesAsync());
        Assert.Single(Directory.GetFiles(folder.Path, "fleet.db.before-*Z"));
        Assert.Empty(Directory.GetFiles(folder.Path, "*.incoming"));
    }

    [Fact]
    public async Task PutBack_WhileTheControlPlaneRuns_IsRefused()
    {
        using var folder = new TempFolder();
        await using var api = await ApiHost.StartAsync(folder);
        StoreCopy.BackUp(Options(folder), folder.File("backup.db"));

        Assert.Throws<StoreException>(() => StoreCopy.PutBack(Options(folder), folder.File("backup.db"), TimeProvider.System.GetUtcNow()));

        Assert.Equal("0\n", await File.ReadAllTextAsync(folder.File("store.epoch")));
    }

    [Theory]
    [InlineData("text")]
    [InlineData("torn")]
    [InlineData("missing")]
    public async Task PutBack_OfWhatIsNoWholeBackup_IsRefusedAndChangesNothing(string how)
    {
        using var folder = new TempFolder();
        await using (var api = await ApiHost.StartAsync(folder))
        {
            await api.Admin.CreateVmAsync(GateWorld.Vm, null);
            StoreCopy.BackUp(Options(folder), folder.File("backup.db"));
        }

        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        var bytes = await File.ReadAllBytesAsync(folder.File("backup.db"));
        switch (how)
        {
            case "text":
                await File.WriteAllTextAsync(folder.File("backup.db"), "not a database, though it is long enough to be taken for the header of one, which has a hundred bytes at least");
                break;
            case "torn":
                await File.WriteAllBytesAsync(folder.File("backup.db"), bytes[..(bytes.Length / 2)]);
                break;
            default:
                File.Delete(folder.File("backup.db"));
                break;
        }

        Assert.Throws<StoreException>(() => StoreCopy.PutBack(Options(folder), folder.File("backup.db"), TimeProvider.System.GetUtcNow()));

        Assert.Equal("0\n", await File.ReadAllTextAsync(folder.File("store.epoch")));
        await using var again = await ApiHost.StartAsync(folder);
        Assert.False((await again.Admin.GetVmAsync(GateWorld.Vm)).Quarantined);
    }

    /// <summary>Nothing tells which store epochs were in use since the backup: far above it.</summary>
    [Fact]
    public async Task PutBack_IntoAnEmptyFolder_LeavesRoomForRestoresThatItCannotKnowOf()
    {
        using var folder = new TempFolder();
        using var other = new TempFolder();
        await using (var api = await ApiHost.StartAsync(folder))
        {
            await api.Admin.CreateVmAsync(GateWorld.Vm, null);
            StoreCopy.BackUp(Options(folder), folder.File("backup.db"));
        }

        Assert.Null(StoreCopy.PutBack(Options(other), folder.File("backup.db"), TimeProvider.System.GetUtcNow()));

        File.Copy(folder.File("admin.token"), other.File("admin.token"));
        await using var restored = await ApiHost.StartAsync(other);
        await restored.AssertQuarantinedAsync();
        Assert.True(StoreEpochs.Of(await restored.CounterAsync()) > 16);
    }

    [Fact]
    public async Task Start_OnAFolderInUse_IsRefused()
    {
        using var folder = new TempFolder();
        await using var api = await ApiHost.StartAsync(folder);
        await Assert.ThrowsAsync<StoreException>(async () => await ApiHost.StartAsync(folder));
        Assert.False((await api.Admin.GetAsync("/v1/hosts")).StatusCode != System.Net.HttpStatusCode.OK);
    }

    private static StoreOptions Options(TempFolder folder) => new() { Folder = folder.Path };
}
