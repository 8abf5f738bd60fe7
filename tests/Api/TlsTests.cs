using System.Net;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Options;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Tests;

/// <summary>https by Kestrel's configuration, with a certificate authority made here, and the agent's own HttpClient.</summary>
public sealed class TlsTests : IDisposable
{
    private static readonly Uri Live = new("/health/live", UriKind.Relative);
    private readonly TestAuthority _ours = new("Fleet test authority");
    private readonly TestAuthority _others = new("Another authority");
    private readonly DirectoryInfo _state = Directory.CreateTempSubdirectory("fl-");

    [Fact]
    public async Task Agent_WithTheAuthoritysFileAndAClientCertificate_EnrolsAndClaims()
    {
        await using var api = await StartAsync($"--Fleet:ClientCertificateCa={_ours.CaFile}");
        var (certificate, key) = _ours.Issue("host-a", isServer: false);
        var options = new AgentOptions { ControlPlane = api.Url.ToString(), ControlPlaneCa = _ours.CaFile, ClientCertificate = certificate, ClientKey = key };
        using var http = ControlPlaneHttp.Create(options);
        http.DefaultRequestHeaders.Authorization = new("Bearer", api.AdminToken);
        await using var agent = await RunningAgent.StartAsync(
            _state.FullName, api.Url, ("JoinToken", await http.JoinTokenAsync("host-a")), ("ControlPlaneCa", _ours.CaFile), ("ClientCertificate", certificate), ("ClientKey", key));
        await agent.SaysAsync(1631);

        // The certificate comes beside the token, not in its place.
        http.DefaultRequestHeaders.Authorization = null;
        await (await http.GetAsync(new Uri(Routes.Vms, UriKind.Relative))).ProblemAsync(HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task Agent_WithAnotherAuthoritysFile_RefusesTheServerAndSaysWhy()
    {
        await using var api = await StartAsync();
        await using var agent = await RunningAgent.StartAsync(_state.FullName, api.Url, ("JoinToken", "none"), ("ControlPlaneCa", _others.CaFile));
        var line = await agent.SaysAsync(1632);
        Assert.Contains("Agent:ControlPlaneCa", line.Text, StringComparison.Ordinal);
        Assert.Contains("certificate", line.Text, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(_state.FullName, "credential")));
    }

    [Fact]
    public async Task Server_WhoseCertificateIsOfAnotherAuthorityOrName_IsRefused()
    {
        await using var api = await StartAsync();
        using (var right = ControlPlaneHttp.Create(new AgentOptions { ControlPlane = api.Url.ToString(), ControlPlaneCa = _ours.CaFile }))
        {
            Assert.Equal("live", await right.GetStringAsync(Live));
        }

        foreach (var (address, ca) in new (Uri, string?)[] { (api.Url, _others.CaFile), (api.Url, null), (new UriBuilder(api.Url) { Host = "localhost" }.Uri, _ours.CaFile) })
        {
            using var http = ControlPlaneHttp.Create(new AgentOptions { ControlPlane = address.ToString(), ControlPlaneCa = ca });
            var exception = await Assert.ThrowsAsync<HttpRequestException>(() => http.GetStringAsync(Live));
            Assert.Contains("Agent:ControlPlaneCa", ControlPlaneHttp.Explain(exception), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Client_WithoutACertificateOfTheAuthority_IsRefused()
    {
        await using var api = await StartAsync($"--Fleet:ClientCertificateCa={_ours.CaFile}");
        var right = _ours.Issue("host-a", isServer: false);
        Assert.Equal("live", await AskAsync(api, right.Certificate, right.Key));
        var other = _others.Issue("host-a", isServer: false);
        var server = _ours.Issue("host-a", isServer: true);
        var expired = _ours.Issue("host-a", isServer: false, TimeProvider.System.GetUtcNow().AddHours(-1));
        foreach (var (certificate, key) in new (string?, string?)[] { (null, null), other, server, expired })
        {
            await Assert.ThrowsAsync<HttpRequestException>(() => AskAsync(api, certificate, key));
        }
    }

    [Theory]
    [InlineData("ControlPlaneCa")]
    [InlineData("ClientCertificate")]
    public async Task Agent_WithAFileThatIsNoCertificate_SaysWhichAndStops(string setting)
    {
        var file = Path.Combine(_state.FullName, "nonsense.pem");
        await File.WriteAllTextAsync(file, "nonsense");
        var exception = await Assert.ThrowsAsync<InvalidOperationException>(() => RunningAgent.StartAsync(
            _state.FullName, new Uri("https://127.0.0.1:9"), (setting, file), (setting == "ClientCertificate" ? "ClientKey" : "LogFormat", file)));
        Assert.Contains($"Agent:{setting} '{file}'", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Agent_WithSettingsThatDoNotGoTogether_TellsThemAll()
    {
        var exception = await Assert.ThrowsAsync<OptionsValidationException>(() => RunningAgent.StartAsync(
            _state.FullName, new Uri("http://127.0.0.1:9"), ("ControlPlaneCa", "x"), ("ClientKey", "x"), ("CredentialLifetime", "1s")));
        Assert.Equal(3, exception.Failures.Count());
    }

    [Fact]
    public async Task Api_WithAnAuthorityFileThatIsNone_IsNotStarted()
    {
        var nonsense = Path.Combine(_state.FullName, "nonsense.pem");
        await File.WriteAllTextAsync(nonsense, "nonsense");
        var exception = await Assert.ThrowsAsync<IOException>(() => StartAsync($"--Fleet:ClientCertificateCa={nonsense}"));
        Assert.Contains("Fleet:ClientCertificateCa", exception.Message, StringComparison.Ordinal);
    }

    public void Dispose()
    {
        _ours.Dispose();
        _others.Dispose();
        _state.Delete(recursive: true);
    }

    private Task<ApiHost> StartAsync(params string[] args)
    {
        var (certificate, key) = _ours.Issue("control plane", isServer: true);
        return ApiHost.StartAsync(
            null, null,
            ["--Kestrel:Endpoints:Https:Url=https://127.0.0.1:0", $"--Kestrel:Endpoints:Https:Certificate:Path={certificate}", $"--Kestrel:Endpoints:Https:Certificate:KeyPath={key}", .. args]);
    }

    private async Task<string> AskAsync(ApiHost api, string? certificate, string? key)
    {
        using var http = ControlPlaneHttp.Create(new AgentOptions
        {
            ControlPlane = api.Url.ToString(),
            ControlPlaneCa = _ours.CaFile,
            ClientCertificate = certificate,
            ClientKey = key,
        });
        return await http.GetStringAsync(Live);
    }
}
