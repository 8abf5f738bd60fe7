using Fleet.Api.Tests.Support;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class StartTests
{
    [Fact]
    public async Task FirstStart_LeavesAdminTokenAndStoreEpochForTheOwnerAlone()
    {
        using var folder = new TempFolder();
        await using var api = await ApiHost.StartAsync(folder);
        foreach (var name in new[] { "admin.token", "store.epoch", "fleet.db" })
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(folder.File(name)));
        }

        Assert.Equal("0\n", await File.ReadAllTextAsync(folder.File("store.epoch")));
        Assert.Equal("ready", await api.Client(null).GetStringAsync(new Uri("/health/ready", UriKind.Relative)));
        Assert.Equal("live", await api.Client(null).GetStringAsync(new Uri("/health/live", UriKind.Relative)));
        Assert.Contains("swagger", await api.Client(null).GetStringAsync(new Uri("/swagger/index.html", UriKind.Relative)), StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task Start_WithoutTheAdminTokenFile_MakesNoOther()
    {
        using var folder = new TempFolder();
        string token;
        await using (var first = await ApiHost.StartAsync(folder))
        {
            token = first.AdminToken;
        }

        File.Delete(folder.File("admin.token"));
        await Assert.ThrowsAsync<FileNotFoundException>(async () => await ApiHost.StartAsync(folder));
        await File.WriteAllTextAsync(folder.File("admin.token"), token);
        await using var again = await ApiHost.StartAsync(folder);
        Assert.Equal(token, again.AdminToken);
    }

    [Theory]
    [InlineData("missing")]
    [InlineData("behind")]
    [InlineData("illegible")]
    [InlineData("no-database")]
    public async Task Start_WhenStoreEpochAndDatabaseDisagree_IsRefused(string how)
    {
        using var folder = new TempFolder();
        await using (await ApiHost.StartAsync(folder))
        {
        }

        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        switch (how)
        {
            case "missing":
                File.Delete(folder.File("store.epoch"));
                break;
            case "behind":
                await File.WriteAllTextAsync(folder.File("store.epoch"), "2");
                await using (await ApiHost.StartAsync(folder))
                {
                }

                Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
                await File.WriteAllTextAsync(folder.File("store.epoch"), "2");
                break;
            case "illegible":
                await File.WriteAllTextAsync(folder.File("store.epoch"), "two");
                break;
            default:
                foreach (var file in Directory.GetFiles(folder.Path, "fleet.db*"))
                {
                    File.Delete(file);
                }

                break;
        }

        var exception = await Assert.ThrowsAsync<StoreException>(async () => await ApiHost.StartAsync(folder));
        Assert.Contains("store.epoch", exception.Message, StringComparison.Ordinal);
        Assert.Equal(how == "no-database", !File.Exists(folder.File("fleet.db")));
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Revisions_OfALaterStoreEpoch_ContinueInIt()
    {
        await using var store = await TestStore.StartAsync();
        await store.WriteAsync(async scope => await scope.Db.Counter.ExecuteUpdateAsync(set => set.SetProperty(row => row.Revision, 3L << 40)));
        Assert.Equal((3L << 40) + 1, await store.WriteAsync(scope => Task.FromResult(scope.Change("test", "x", "test"))));
        Assert.Equal(3, StoreEpoch.Of((3L << 40) + 1));
    }

    [Theory]
    [InlineData("http://0.0.0.0:0")]
    [InlineData("http://*:0")]
    [InlineData("http://192.0.2.1:0")]
    [InlineData("http://127.0.0.1:0;http://[::]:0")]
    public async Task Start_WithPlainHttpBeyondLoopback_IsRefused(string urls)
    {
        using var folder = new TempFolder();
        await Assert.ThrowsAsync<StoreException>(async () => await ApiHost.StartAsync(folder, null, "--urls", urls));
        Assert.Empty(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public async Task Start_WithPlainHttpAllowed_Listens()
    {
        await using var api = await ApiHost.StartAsync(null, null, "--urls", "http://0.0.0.0:0", "--Fleet:AllowPlainHttp=true");
        Assert.NotNull(api.Url);
    }

    [Fact]
    public async Task Start_WithOptionsThatAreNotValid_TellsThemAll()
    {
        var exception = await Assert.ThrowsAsync<OptionsValidationException>(async () =>
            await ApiHost.StartAsync(null, null, "--Fleet:LogFormat=xml", "--Fleet:HeartbeatInterval=00:00:00"));
        Assert.Equal(2, exception.Failures.Count());
    }

    [Fact]
    public async Task Migrations_MatchTheModel()
    {
        await using var store = await TestStore.StartAsync();
        await using var db = store.Contexts.OpenWriter();
        Assert.False(db.Database.HasPendingModelChanges());
        Assert.Equal(0, await store.ReadAsync(context => context.Set<ChangeRow>().CountAsync()));
        Assert.True(store.Services.GetRequiredService<StoreStartup>().IsReady);
    }
}
