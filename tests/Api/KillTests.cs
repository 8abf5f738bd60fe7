using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Http.Headers;
using System.Reflection;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Pages;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>The real process, killed with SIGKILL in the middle of its work.</summary>
public sealed class KillTests
{
    private const int Rounds = 50;
    private const int Writers = 64;

    [Fact]
    [Trait("Invariant", "I2")]
    [Trait("Invariant", "I3")]
    public async Task Process_KilledUnderLoad_LosesNothingThatItAcknowledged()
    {
        using var folder = new TempFolder();
        var acknowledged = new ConcurrentDictionary<long, long>();
        long highest = 0, nextFrame = 0;
        var feed = new ChangeFeed(0);
        for (var round = 0; round <= Rounds; round++)
        {
            await using var process = await ApiProcess.StartAsync(folder);
            if (round == 0)
            {
                await process.Client.CreateVmAsync("vm-1", null, [new("0x0", 1L << 32, 4096)]);
            }

            var vm = await process.Client.GetVmAsync("vm-1");
            Assert.True(vm.Generation >= highest, $"Round {round}: generation {vm.Generation} is below {highest}, which was acknowledged.");
            await CheckAsync(process, acknowledged, round);
            if (round == Rounds)
            {
                await CatchUpAsync(feed, process);
                break;
            }

            // Killed right after the n-th answer of the round, whatever is under way then.
            var killAfter = acknowledged.Count + 1 + (round * 7 % 60);
            var killed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var following = Task.Run(() => FollowAsync(feed, process));
            var writers = Enumerable.Range(0, Writers).Select(_ => Task.Run(async () =>
            {
                try
                {
                    while (!killed.Task.IsCompleted)
                    {
                        var frame = Interlocked.Increment(ref nextFrame);
                        var result = await process.Client.AddPagesAsync("vm-1", new PageReport(frame, 12));
                        acknowledged[frame] = result.Generation;
                        if (acknowledged.Count >= killAfter && killed.TrySetResult())
                        {
                            process.Kill();
                        }
                    }
                }
                catch (Exception exception) when (exception is HttpRequestException or IOException)
                {
                    // Not answered: it may be there or not.
                }
            }));
            await Task.WhenAll([.. writers, following]);
            highest = acknowledged.Values.Max();
        }

        Assert.True(acknowledged.Count >= Rounds);
        // Every revision once, in order, over all the breaks; and each acknowledged page in exactly the change that its answer named.
        Assert.Equal(Enumerable.Range(1, feed.Changes.Count).Select(revision => (long)revision), feed.Changes.Select(change => change.Revision));
        var added = feed.Changes.Where(change => change.Kind == ChangeKinds.PagesAdded)
            .ToDictionary(change => change.Data!.Value.GetProperty("added")[0].GetProperty("frame").GetInt64(), change => change.Revision);
        Assert.All(acknowledged, page => Assert.Equal(page.Value, added[page.Key]));
    }

    /// <summary>Until the process is killed under it.</summary>
    private static async Task FollowAsync(ChangeFeed feed, ApiProcess process)
    {
        try
        {
            await foreach (var _ in feed.FollowAsync(process.Client))
            {
            }
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException)
        {
            // Killed; the next process goes on from the last event.
        }
    }

    private static async Task CatchUpAsync(ChangeFeed feed, ApiProcess process)
    {
        var newest = (await (await process.Client.GetAsync(new Uri($"{Routes.Changes}?limit=1", UriKind.Relative))).ReadAsync(FleetJson.Default.ChangeList)).Revision;
        await foreach (var _ in feed.FollowAsync(process.Client))
        {
            if (feed.Last >= newest)
            {
                return;
            }
        }
    }

    private static async Task CheckAsync(ApiProcess process, ConcurrentDictionary<long, long> acknowledged, int round)
    {
        var found = new Dictionary<long, long>();
        string? after = null;
        do
        {
            var list = await process.Client.GetPagesAsync("vm-1", $"?limit=1000{(after is null ? "" : $"&after={after}")}");
            foreach (var page in list.Items)
            {
                found.Add(page.Frame, page.AddedGeneration);
            }

            after = list.Next;
        }
        while (after is not null);

        foreach (var (frame, generation) in acknowledged)
        {
            Assert.True(found.TryGetValue(frame, out var stored), $"Round {round}: frame {frame} was acknowledged and is gone.");
            Assert.Equal(generation, stored);
        }
    }

    private sealed class ApiProcess : IAsyncDisposable
    {
        private readonly Process _process;

        private ApiProcess(Process process, Uri url, string token)
        {
            _process = process;
            Client = new HttpClient { BaseAddress = url };
            Client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }

        public HttpClient Client { get; }

        public static async Task<ApiProcess> StartAsync(TempFolder folder)
        {
            var program = typeof(KillTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "ApiProgram").Value!;
            var start = new ProcessStartInfo("dotnet", [program, "--urls", "http://127.0.0.1:0", $"--Fleet:DataFolder={folder.Path}", "--Fleet:LogFormat=json"])
            {
                RedirectStandardOutput = true,
                Environment = { ["DOTNET_TieredPGO"] = "0", ["DOTNET_gcServer"] = "0" },
            };
            var process = Process.Start(start)!;
            while (await process.StandardOutput.ReadLineAsync() is { } line)
            {
                const string mark = "\"address\":\"";
                if (line.IndexOf(mark, StringComparison.Ordinal) is var at and >= 0)
                {
                    var url = new Uri(line[(at + mark.Length)..line.IndexOf('"', at + mark.Length)]);
                    _ = process.StandardOutput.ReadToEndAsync();
                    return new ApiProcess(process, url, (await File.ReadAllTextAsync(folder.File("admin.token"))).Trim());
                }
            }

            throw new InvalidOperationException("The API did not start.");
        }

        public void Kill() => _process.Kill();

        public async ValueTask DisposeAsync()
        {
            Client.Dispose();
            _process.Kill();
            await _process.WaitForExitAsync();
            _process.Dispose();
        }
    }
}
