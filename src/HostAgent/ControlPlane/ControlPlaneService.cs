using Fleet.Contracts.Agents;
using Fleet.HostAgent.Options;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Enrols, claims, and keeps the three conversations with the control plane going. Its absence stops no enforcement.</summary>
public sealed partial class ControlPlaneService(
    Enrollment enrollment, CredentialRotation rotation, ControlPlaneClient client, DesiredStream stream, Heartbeats heartbeats, ReportSender reports,
    IHostApplicationLifetime lifetime, IOptions<AgentOptions> options, TimeProvider time,
    ILogger<ControlPlaneService> logger) : BackgroundService
{
    // A conversation that lasted this long was a success, however it ended.
    private static readonly TimeSpan Lasting = TimeSpan.FromSeconds(30);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            client.UseCredential(await RepeatAsync("enrol", enrollment.GetCredentialAsync, stoppingToken));
            await RepeatAsync("finish replacing the credential", ResumeAsync, stoppingToken);
            var claim = await RepeatAsync("claim the host", ClaimAsync, stoppingToken);
            LogClaimed(options.Value.Host, claim.Incarnation);
            await Task.WhenAll(
                KeepAsync("desired-state stream", token => stream.FollowAsync(claim.Incarnation, token), stoppingToken),
                KeepAsync("heartbeats", token => RunAsync(heartbeats.RunAsync(claim, token)), stoppingToken),
                KeepAsync("reports", token => RunAsync(reports.RunAsync(claim.Incarnation, token)), stoppingToken),
                KeepAsync("rotation of the credential", token => RunAsync(rotation.RunAsync(token)), stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping.
        }
        catch (Exception exception) when (exception is InvalidOperationException or InvalidDataException)
        {
            LogCannotStart(exception.Message);
            Stop(ExitCodes.Configuration);
        }
    }

    private async Task<bool> ResumeAsync(CancellationToken cancellationToken)
    {
        await rotation.ResumeAsync(cancellationToken);
        return true;
    }

    private Task<ClaimResult> ClaimAsync(CancellationToken cancellationToken) =>
        client.ClaimAsync(
            new ClaimRequest(KernelInfo.BootId, AgentVersion.Text, KernelInfo.Release, CapabilityProbe.Table()), cancellationToken);

    private async Task<T> RepeatAsync<T>(string what, Func<CancellationToken, Task<T>> call, CancellationToken cancellationToken)
    {
        var backoff = new Backoff();
        while (true)
        {
            try
            {
                return await call(cancellationToken);
            }
            catch (ControlPlaneException exception) when (exception.Code.StartsWith("join-token-", StringComparison.Ordinal))
            {
                // Trying again does not help, but VMs of an earlier life may still need enforcing: the agent stays.
                LogJoinTokenRefused(exception.Message, options.Value.Host);
                await Task.Delay(TimeSpan.FromMinutes(1), time, cancellationToken); // allowed: pace of a message for a person
            }
            catch (Exception exception) when (IsPassing(exception, cancellationToken))
            {
                LogRetry(what, ControlPlaneHttp.Explain(exception));
                await RecoverAsync(exception, cancellationToken);
                await Task.Delay(backoff.Next(), time, cancellationToken); // allowed: backoff
            }
        }
    }

    private async Task KeepAsync(string what, Func<CancellationToken, Task<TimeSpan?>> run, CancellationToken cancellationToken)
    {
        var backoff = new Backoff();
        while (!cancellationToken.IsCancellationRequested)
        {
            TimeSpan? pause = null;
            var started = time.GetTimestamp();
            try
            {
                pause = await run(cancellationToken);
            }
            catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.AgentSuperseded)
            {
                LogSuperseded(options.Value.Host);
                Stop(ExitCodes.Superseded);
                return;
            }
            catch (Exception exception) when (IsPassing(exception, cancellationToken))
            {
                LogRetry(what, ControlPlaneHttp.Explain(exception));
                await RecoverAsync(exception, cancellationToken);
            }

            if (pause is not null || time.GetElapsedTime(started) > Lasting)
            {
                backoff.Reset();
            }

            await Task.Delay(pause ?? backoff.Next(), time, cancellationToken); // allowed: backoff
        }
    }

    private async Task RecoverAsync(Exception exception, CancellationToken cancellationToken)
    {
        if (exception is not ControlPlaneException { Code: "unauthenticated" })
        {
            return;
        }

        try
        {
            await rotation.RecoverAsync(cancellationToken);
        }
        catch (Exception failure) when (IsPassing(failure, cancellationToken))
        {
            LogRetry("recover the credential", ControlPlaneHttp.Explain(failure));
        }
    }

    private static async Task<TimeSpan?> RunAsync(Task conversation)
    {
        await conversation;
        return null;
    }

    private void Stop(int exitCode)
    {
        Environment.ExitCode = exitCode;
        lifetime.StopApplication();
    }

    private static bool IsPassing(Exception exception, CancellationToken cancellationToken) => exception switch
    {
        HttpRequestException or ControlPlaneException or IOException or InvalidDataException => true,
        OperationCanceledException => !cancellationToken.IsCancellationRequested,
        _ => false,
    };

    [LoggerMessage(1631, LogLevel.Information, "Host {Host} is claimed by this agent: incarnation {Incarnation}")]
    private partial void LogClaimed(string host, long incarnation);

    [LoggerMessage(1632, LogLevel.Warning, "Could not {What}: {Problem}. Enforcement goes on with the last known state; trying again")]
    private partial void LogRetry(string what, string problem);

    [LoggerMessage(1633, LogLevel.Critical, "Another agent process claimed host {Host}; this one stops. What is armed stays armed. If that was not intended, look for a second agent with this host's credential")]
    private partial void LogSuperseded(string host);

    [LoggerMessage(1635, LogLevel.Error, "The join token was refused ({Problem}). Create another (POST /v1/join-tokens with host {Host}) and start the agent with it")]
    private partial void LogJoinTokenRefused(string problem, string host);

    [LoggerMessage(1634, LogLevel.Critical, "The agent cannot start: {Problem}")]
    private partial void LogCannotStart(string problem);
}
