using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.Api.Tests;

/// <summary>The agent's side of a change of credential, against the control plane itself: wherever it dies, it holds one that works.</summary>
public sealed class AgentRotationTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly FakeTimeProvider _time = new(DateTimeOffset.UnixEpoch.AddYears(60));

    private string CredentialFile => Path.Combine(_root.FullName, "credential");

    private string NextFile => CredentialFile + ".next";

    private string PreviousFile => CredentialFile + ".previous";

    [Fact]
    public async Task Start_WithACredentialThatIsOldEnough_ReplacesItAndGoesOn()
    {
        await using var api = await ApiHost.StartAsync();
        string first;
        await using (var agent = await RunningAgent.StartAsync(_root.FullName, api.Url, ("JoinToken", await api.Admin.JoinTokenAsync("host-a"))))
        {
            await agent.SaysAsync(1631);
            first = (await File.ReadAllTextAsync(CredentialFile)).Trim();
            Assert.DoesNotContain(agent.Logs, line => line.EventId == 1641);
        }

        File.SetLastWriteTimeUtc(CredentialFile, TimeProvider.System.GetUtcNow().UtcDateTime.AddDays(-31));
        await using (var agent = await RunningAgent.StartAsync(_root.FullName, api.Url))
        {
            await agent.SaysAsync(1641);
            var second = (await File.ReadAllTextAsync(CredentialFile)).Trim();
            Assert.NotEqual(first, second);
            Assert.Equal(first, await File.ReadAllTextAsync(PreviousFile));
            Assert.False(File.Exists(NextFile));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(CredentialFile));
            Assert.DoesNotContain(agent.Logs, line => line.Text.Contains(second[24..], StringComparison.Ordinal) || line.Text.Contains(first[24..], StringComparison.Ordinal));
        }

        var listed = await TokenTests.ListAsync(api, "?kind=agent");
        Assert.Equal(2, listed.Count);
        Assert.Single(listed, item => item.ReplacedBy is not null && item.ExpiresAt is not null);
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 0)]
    [InlineData(true, 10)]
    public async Task Death_AfterTheNewSecretIsOnDisk_LeavesOneThatWorks(bool wasHeard, int minutesLater)
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        await EnrolAsync(api);
        var cut = new CutHandler { ReachesServer = wasHeard };
        await Assert.ThrowsAsync<HttpRequestException>(() => Rotation(api, cut).RotateAsync(CancellationToken.None));
        var (old, next) = (await File.ReadAllTextAsync(CredentialFile), await File.ReadAllTextAsync(NextFile));
        Assert.True(TokenText.TryGetId(next, out _));

        _time.Advance(TimeSpan.FromMinutes(minutesLater));
        await Rotation(api).ResumeAsync(CancellationToken.None);
        Assert.Equal(next, await File.ReadAllTextAsync(CredentialFile));
        Assert.Equal(old, await File.ReadAllTextAsync(PreviousFile));
        Assert.False(File.Exists(NextFile));
        Assert.Equal(HttpStatusCode.NotFound, await AskAsync(api, next));
    }

    [Fact]
    public async Task Death_BetweenTheAnswerAndTheNewName_LeavesOneThatWorks()
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        await EnrolAsync(api);
        await Assert.ThrowsAsync<HttpRequestException>(() => Rotation(api, new CutHandler { ReachesServer = true }).RotateAsync(CancellationToken.None));
        var next = await File.ReadAllTextAsync(NextFile);
        File.Copy(CredentialFile, PreviousFile);
        await Rotation(api).ResumeAsync(CancellationToken.None);
        Assert.Equal(next, await File.ReadAllTextAsync(CredentialFile));
        Assert.Equal(HttpStatusCode.NotFound, await AskAsync(api, next));
    }

    [Fact]
    public async Task Rotate_AgainAfterALostAnswer_SendsTheSameSecret()
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        await EnrolAsync(api);
        await Assert.ThrowsAsync<HttpRequestException>(() => Rotation(api, new CutHandler { ReachesServer = true }).RotateAsync(CancellationToken.None));
        var next = await File.ReadAllTextAsync(NextFile);
        await Rotation(api).RotateAsync(CancellationToken.None);
        Assert.Equal(next, await File.ReadAllTextAsync(CredentialFile));
        Assert.Equal(2, (await TokenTests.ListAsync(api, "?kind=agent")).Count);
    }

    [Fact]
    public async Task Rotate_WhenSomebodyElseDidItFirst_KeepsThePresentOne()
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        await EnrolAsync(api);
        var old = await File.ReadAllTextAsync(CredentialFile);
        var (client, stolen) = (Client(api), TokenText.Create());
        Assert.True(TokenText.TryGetId(stolen, out var id));
        await client.RotateAsync(new RotateRequest(id, TokenText.Hash(stolen)), old, CancellationToken.None);
        await Rotation(api).RotateAsync(CancellationToken.None);
        Assert.Equal(old, await File.ReadAllTextAsync(CredentialFile));
        Assert.Equal(HttpStatusCode.NotFound, await AskAsync(api, old));
    }

    [Fact]
    public async Task Recover_WhereTheControlPlaneKnowsOnlyTheFormerOne_IntroducesThePresentOne()
    {
        await using var api = await ApiHost.StartAsync(time: _time);
        await EnrolAsync(api);
        var (known, unknown) = (await File.ReadAllTextAsync(CredentialFile), TokenText.Create());
        await File.WriteAllTextAsync(PreviousFile, known);
        await File.WriteAllTextAsync(CredentialFile, unknown);
        await using var agent = await RunningAgent.StartAsync(_root.FullName, api.Url);
        await agent.SaysAsync(1643);
        await agent.SaysAsync(1631);
        Assert.Equal(HttpStatusCode.NotFound, await AskAsync(api, unknown));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private async Task EnrolAsync(ApiHost api)
    {
        var options = Options(await api.Admin.JoinTokenAsync("host-a"));
        using var folder = new StateFolder(options);
        await new Enrollment(Client(api), folder, options, NullLogger<Enrollment>.Instance).GetCredentialAsync(CancellationToken.None);
    }

    private CredentialRotation Rotation(ApiHost api, CutHandler? cut = null)
    {
        var options = Options(null);
        using var folder = new StateFolder(options);
        return new CredentialRotation(Client(api, cut), folder, options, _time, NullLogger<CredentialRotation>.Instance);
    }

    private IOptions<AgentOptions> Options(string? joinToken) =>
        Microsoft.Extensions.Options.Options.Create(new AgentOptions { Host = "host-a", StateFolder = _root.FullName, JoinToken = joinToken });

    private static ControlPlaneClient Client(ApiHost api, CutHandler? cut = null) =>
        new(cut is null ? api.Client(null) : new HttpClient(cut) { BaseAddress = api.Url }, "host-a");

    /// <summary>404 (the VM) where the credential is good, 401 where it is not.</summary>
    private static async Task<HttpStatusCode> AskAsync(ApiHost api, string credential) =>
        (await api.Client(credential.Trim()).GetAsync(new Uri(Routes.DesiredVm("host-a", "vm-1"), UriKind.Relative))).StatusCode;

    /// <summary>The connection breaks before the request arrives, or before its answer does.</summary>
    private sealed class CutHandler : DelegatingHandler
    {
        public CutHandler()
            : base(new SocketsHttpHandler())
        {
        }

        public bool ReachesServer { get; init; }

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            if (ReachesServer)
            {
                (await base.SendAsync(request, cancellationToken)).Dispose();
            }

            throw new HttpRequestException("cut");
        }
    }
}
