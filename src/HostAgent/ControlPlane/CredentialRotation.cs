using System.Net;
using System.Text;
using Fleet.Contracts;
using Fleet.Contracts.Security;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>
/// Replaces this host's credential at an interval, without a moment in which the agent holds none that works: the new secret is
/// on disk before its hash is sent, takes the old one's place only when the control plane has confirmed it, and the old one is
/// kept beside it. Wherever the agent dies, the next one asks again with the same new secret.
/// </summary>
public sealed partial class CredentialRotation(
    ControlPlaneClient client, StateFolder folder, IOptions<AgentOptions> options, TimeProvider time, ILogger<CredentialRotation> logger) : IDisposable
{
    private static readonly TimeSpan LongestPause = TimeSpan.FromHours(1);
    private readonly SemaphoreSlim _one = new(1, 1);

    // Hosts that were enrolled together do not all come back in the same minute.
    private readonly double _share = 0.9 + (Random.Shared.NextDouble() / 10);

    private string NextFile => folder.CredentialFile + ".next";

    private string PreviousFile => folder.CredentialFile + ".previous";

    /// <summary>Finishes what an earlier life of the agent began. A refusal is told and leaves the present credential in use.</summary>
    /// <exception cref="HttpRequestException">Nobody answered: to be tried again before anything else is asked.</exception>
    public async Task ResumeAsync(CancellationToken cancellationToken)
    {
        if (File.Exists(NextFile))
        {
            await FinishAsync(cancellationToken);
        }
    }

    /// <summary>Rotates when the credential is old enough. Runs until a call fails.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            var rest = Remaining();
            if (rest <= TimeSpan.Zero)
            {
                await RotateAsync(cancellationToken);
                rest = Remaining() is { } again && again > TimeSpan.Zero ? again : LongestPause;
            }

            await Task.Delay(rest < LongestPause ? rest : LongestPause, time, cancellationToken); // allowed: the pace of rotation
        }
    }

    public async Task RotateAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(NextFile) || !TokenText.TryGetId(await ReadAsync(NextFile, cancellationToken), out _))
        {
            DurableFile.Write(NextFile, Encoding.ASCII.GetBytes(TokenText.Create()));
        }

        await FinishAsync(cancellationToken);
    }

    /// <summary>
    /// The present credential is not accepted. A control plane that was put back from a backup may know only the one before it:
    /// then that one introduces the present one again.
    /// </summary>
    public async Task RecoverAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (File.Exists(PreviousFile))
            {
                var (previous, present) = (await ReadAsync(PreviousFile, cancellationToken), await ReadAsync(folder.CredentialFile, cancellationToken));
                await client.RotateAsync(Request(present), previous, cancellationToken);
                LogRecovered(options.Value.Host);
            }
        }
        catch (ControlPlaneException exception)
        {
            LogNotRecovered(exception.Message, options.Value.Host);
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose() => _one.Dispose();

    private TimeSpan Remaining()
    {
        // The file is as old as the secret in it: it is written once, under its first name.
        var age = time.GetUtcNow() - new DateTimeOffset(File.GetLastWriteTimeUtc(folder.CredentialFile), TimeSpan.Zero);
        return (options.Value.CredentialLifetimeSpan * _share) - age;
    }

    private async Task FinishAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            var (present, next) = (await ReadAsync(folder.CredentialFile, cancellationToken), await ReadAsync(NextFile, cancellationToken));
            try
            {
                await client.RotateAsync(Request(next), present, cancellationToken);
            }
            catch (ControlPlaneException exception) when (exception.Status == HttpStatusCode.Unauthorized)
            {
                // The answer may have been lost so long ago that only the new one is good by now.
                await client.RotateAsync(Request(next), next, cancellationToken);
            }

            DurableFile.Write(PreviousFile, Encoding.ASCII.GetBytes(present));
            File.Move(NextFile, folder.CredentialFile, overwrite: true);
            DurableFile.SyncFolder(folder.Root);
            client.UseCredential(next);
            LogRotated(options.Value.Host);
        }
        catch (ControlPlaneException exception)
        {
            LogRefused(exception.Message, options.Value.Host);
        }
        finally
        {
            _one.Release();
        }
    }

    private static async Task<string> ReadAsync(string path, CancellationToken cancellationToken) =>
        (await File.ReadAllTextAsync(path, cancellationToken)).Trim();

    private static RotateRequest Request(string credential) =>
        TokenText.TryGetId(credential, out var id)
            ? new RotateRequest(id, TokenText.Hash(credential))
            : throw new InvalidDataException("a credential file in the state folder does not hold a credential");

    [LoggerMessage(1641, LogLevel.Information, "The credential of host {Host} was replaced")]
    private partial void LogRotated(string host);

    [LoggerMessage(1642, LogLevel.Error, "The credential of host {Host} could not be replaced ({Problem}); the present one stays in use. If that says credential-replaced, somebody else has it: revoke it (DELETE /v1/tokens) and enrol the host anew")]
    private partial void LogRefused(string problem, string host);

    [LoggerMessage(1643, LogLevel.Warning, "The control plane knew only the former credential of host {Host}; the present one was introduced again")]
    private partial void LogRecovered(string host);

    [LoggerMessage(1644, LogLevel.Error, "Neither credential of host {Host} is accepted ({Problem}). If the host was not revoked on purpose, enrol it anew")]
    private partial void LogNotRecovered(string problem, string host);
}
