using System.Diagnostics;
using System.Reflection;
using Fleet.Api.Tests.Support;
using Fleet.Data.Storage;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

/// <summary>The verb as it is run: its words and its exit code.</summary>
public sealed class MigrateVerbTests : IDisposable
{
    private const string Newest = "_Indexes";
    private readonly TempFolder _folder = new();

    [Fact]
    public async Task Migrate_OfAnOlderDatabase_SaysWhatIsPendingThenAppliesItOnce()
    {
        await MakeOlderAsync();
        var (checkedCode, pending) = await RunAsync("--check");
        Assert.Equal(2, checkedCode);
        Assert.Contains(Newest, pending, StringComparison.Ordinal);
        Assert.Equal(2, (await RunAsync("--check")).ExitCode);

        var (code, applied) = await RunAsync();
        Assert.Equal(0, code);
        Assert.Contains("Applied", applied, StringComparison.Ordinal);
        Assert.Contains(Newest, applied, StringComparison.Ordinal);
        Assert.Equal(0, (await RunAsync("--check")).ExitCode);
        Assert.Contains("Nothing was pending", (await RunAsync()).Output, StringComparison.Ordinal);

        await using var api = await ApiHost.StartAsync(_folder);
        Assert.Equal("""{"items":[],"next":null}""", await api.Admin.GetStringAsync(new Uri("/v1/faults", UriKind.Relative)));
    }

    [Fact]
    public async Task Migrate_WhileTheServerRuns_IsRefusedButMayCheck()
    {
        await using var api = await ApiHost.StartAsync(_folder);
        var (code, output) = await RunAsync();
        Assert.Equal(1, code);
        Assert.Contains("Another process uses the data folder", output, StringComparison.Ordinal);
        Assert.Equal(0, (await RunAsync("--check")).ExitCode);
    }

    [Theory]
    [InlineData("none", "does not exist")]
    [InlineData("foreign", "not a database of Fleet")]
    [InlineData("garbage", "not a database of Fleet")]
    [InlineData("newer", "newer program")]
    public async Task Migrate_OfWhatIsNotItsDatabase_IsRefusedAndChangesNothing(string what, string reason)
    {
        switch (what)
        {
            case "foreign":
                Execute("CREATE TABLE other (a)");
                break;
            case "garbage":
                await File.WriteAllTextAsync(_folder.File("fleet.db"), new string('x', 5000));
                break;
            case "newer":
                await MakeOlderAsync();
                Execute("INSERT INTO __EFMigrationsHistory VALUES ('29990101000000_Future', '99')");
                break;
        }

        var before = what == "none" ? null : await File.ReadAllBytesAsync(_folder.File("fleet.db"));
        foreach (var arguments in new[] { Array.Empty<string>(), ["--check"] })
        {
            var (code, output) = await RunAsync(arguments);
            Assert.Equal(1, code);
            Assert.Contains(reason, output, StringComparison.Ordinal);
        }

        Assert.Equal(before, what == "none" ? null : await File.ReadAllBytesAsync(_folder.File("fleet.db")));
    }

    /// <summary>This program does not know what the tables mean, and would write into them what the newer one takes for something else.</summary>
    [Fact]
    public async Task Start_OnADatabaseOfANewerProgram_IsRefusedAndChangesNothing()
    {
        await MakeOlderAsync();
        Execute("INSERT INTO __EFMigrationsHistory VALUES ('29990101000000_Future', '99')");
        var before = await File.ReadAllBytesAsync(_folder.File("fleet.db"));

        var exception = await Assert.ThrowsAsync<StoreException>(() => ApiHost.StartAsync(_folder));
        Assert.Contains("29990101000000_Future", exception.Message, StringComparison.Ordinal);
        SqliteConnection.ClearAllPools();
        Assert.Equal(before, await File.ReadAllBytesAsync(_folder.File("fleet.db")));

        var (code, output) = await RunProgramAsync("--urls=http://127.0.0.1:0");
        Assert.Equal(1, code);
        Assert.Contains("newer program", output, StringComparison.Ordinal);
        Assert.Equal(before, await File.ReadAllBytesAsync(_folder.File("fleet.db")));
    }

    [Fact]
    public async Task Migrate_WithAnUnknownFlag_ChangesNothing()
    {
        await MakeOlderAsync();
        Assert.Equal(1, (await RunAsync("--chek")).ExitCode);
        Assert.Equal(2, (await RunAsync("--check")).ExitCode);
        Assert.Contains("migrate [--check]", (await RunAsync("--help")).Output, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    /// <summary>A database as the program before the newest migration left it.</summary>
    private async Task MakeOlderAsync()
    {
        await using (await ApiHost.StartAsync(_folder))
        {
        }

        await using (var db = new StoreContexts(Options.Create(new StoreOptions { Folder = _folder.Path })).OpenWriter())
        {
            var all = db.Database.GetMigrations().ToList();
            Assert.EndsWith(Newest, all[^1], StringComparison.Ordinal);
            await db.GetInfrastructure().GetRequiredService<IMigrator>().MigrateAsync(all[^2]);
        }

        SqliteConnection.ClearAllPools();
    }

    private void Execute(string sql)
    {
        using var connection = new SqliteConnection($"Data Source={_folder.File("fleet.db")};Pooling=false");
        connection.Open();
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    private Task<(int ExitCode, string Output)> RunAsync(params string[] arguments) => RunProgramAsync(["migrate", .. arguments]);

    private async Task<(int ExitCode, string Output)> RunProgramAsync(params string[] arguments)
    {
        var program = typeof(MigrateVerbTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "ApiProgram").Value!;
        using var process = Process.Start(new ProcessStartInfo("dotnet", [program, .. arguments, $"--Fleet:DataFolder={_folder.Path}"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var texts = await Task.WhenAll(process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        await process.WaitForExitAsync();
        return (process.ExitCode, string.Concat(texts));
    }
}
