using Fleet.Contracts.Agents;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.Spool;
using Fleet.Linux.Processes;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>Enrols, claims, and keeps the three conversations with the control plane going. Its absence stops no enforcement.</summary>
public sealed partial class ControlPlaneService(
    Enrollment enrollment, CredentialRotation rotation, ControlPlaneClient client, DesiredStream stream, Heartbeats heartbeats, ReportSender reports,
    StorePromise promise, Stating stating, ReportSpool spool, VmTable table, IHostApplicationLifetime lifetime, IOptions<AgentOptions> options, TimeProvider time,
    ILogger<ControlPlaneService> logger) : BackgroundService
{
    private readonly LogPace _retries = new(time);

    // The control plane knows less of the spool than it answered: it is shown how much with the next claim.
    private bool _spoolForgotten;

    // A conversation that lasted this long was a success, however it ended.
    private static readonly TimeSpan Lasting = TimeSpan.FromSeconds(30);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            // What this host holds, and the highest number it knows, is complete only then.
            await table.WhenLoadedAsync().WaitAsync(stoppingToken);
            client.UseCredential(await RepeatAsync("enrol", enrollment.GetCredentialAsync, stoppingToken));
            await RepeatAsync("finish replacing the credential", ResumeAsync, stoppingToken);
            var backoff = new Backoff();
            while (await LiveAsync(stoppingToken))
            {
                await Task.Delay(backoff.Next(), time, stoppingToken); // allowed: backoff
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping.
        }
        catch (CannotStartException exception)
        {
            LogCannotStart(exception.Message);
            Stop(ExitCodes.Configuration);
        }
    }

    /// <summary>One claim, and all that is said under it.</summary>
    /// <returns>Whether to claim again: a new store epoch has begun.</returns>
    private async Task<bool> LiveAsync(CancellationToken stoppingToken)
    {
        var claim = await RepeatAsync("claim the host", ClaimAsync, stoppingToken);
        LogClaimed(options.Value.Host, claim.Incarnation);
        try
        {
            if (claim.StatementRequired || claim.StoreEpoch > promise.StoreEpoch)
            {
                // Again after a crash in the middle: neither is done twice in a way that matters.
                await stating.PromiseAsync(claim.StoreEpoch, stoppingToken);
            }

            if (_spoolForgotten && !claim.StatementRequired)
            {
                // It proved nothing: what waits goes out under a new id, so that no gap keeps it.
                spool.StartOver();
            }

            _spoolForgotten = false;
            if (claim.StatementRequired)
            {
                await RepeatAsync("state what this host holds", token => StateAsync(claim, token), stoppingToken);
            }

            await ConverseAsync(claim, stoppingToken);
            return false;
        }
        catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.StatementRequired)
        {
            LogClaimAgain(options.Value.Host);
            return true;
        }
        catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.SpoolGap)
        {
            _spoolForgotten = true;
            LogForgotten(exception.Message);
            return true;
        }
        catch (Exception exception) when (IsPassing(exception, stoppingToken))
        {
            // The state folder, mostly.
            SayRetry("take up the claim", exception);
            return true;
        }
        catch (ControlPlaneException exception) when (exception.Code == ControlPlaneException.AgentSuperseded)
        {
            LogSuperseded(options.Value.Host);
            Stop(ExitCodes.Superseded);
            return false;
        }
    }

    /// <summary>Until one of the three is refused for good; then all have ended.</summary>
    private Task ConverseAsync(ClaimResult claim, CancellationToken stoppingToken) => Loops.RunAsync(
        [
            ended => KeepAsync("desired-state stream", token => stream.FollowAsync(claim.Incarnation, token), ended),
            ended => KeepAsync("heartbeats", token => RunAsync(heartbeats.RunAsync(claim, token)), ended),
            ended => KeepAsync("reports", token => RunAsync(reports.RunAsync(claim.Incarnation, token)), ended),
            ended => KeepAsync("rotation of the credential", token => RunAsync(rotation.RunAsync(token)), ended),
        ],
        stoppingToken);

    private async Task<ClaimResult> ClaimAsync(CancellationToken cancellationToken)
    {
        var claim = await client.ClaimAsync(
            new ClaimRequest(KernelInfo.BootId, AgentVersion.Text, KernelInfo.Release, CapabilityProbe.Table(), stating.HighestSeen, promise.Incarnation, spool.Position),
            cancellationToken);
        if (claim.StoreEpoch < promise.StoreEpoch)
        {
            throw new InvalidDataException(
                $"the control plane is of store epoch {claim.StoreEpoch}, and this host has promised to refuse everything before {promise.StoreEpoch}");
        }

        promise.Claimed(claim.Incarnation);
        return claim;
    }

    private async Task<bool> StateAsync(ClaimResult claim, CancellationToken cancellationToken)
    {
        await stating.StateAsync(claim, cancellationToken);
        return true;
    }

    private async Task<bool> ResumeAsync(CancellationToken cancellationToken)
    {
        await rotation.ResumeAsync(cancellationToken);
        return true;
    }

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
                SayRetry(what, exception);
                await RecoverAsync(exception, cancellationToken);
                await Task.Delay(Backoff.AtLeast(backoff.Next(), exception), time, cancellationToken); // allowed: backoff
            }
        }
    }

    private async Task KeepAsync(string what, Func<CancellationToken, Task<TimeSpan?>> run, CancellationToken cancellationToken)
    {
        var backoff = new Backoff();
        while (!cancellationToken.IsCancellationRequested)
        {
            TimeSpan? pause = null;
            var asked = TimeSpan.Zero;
            var started = time.GetTimestamp();
            try
            {
                pause = await run(cancellationToken);
            }
            catch (Exception exception) when (IsPassing(exception, cancellationToken))
            {
                SayRetry(what, exception);
                await RecoverAsync(exception, cancellationToken);
                asked = Backoff.AtLeast(TimeSpan.Zero, exception);
            }

            if (pause is not null || time.GetElapsedTime(started) > Lasting)
            {
                backoff.Reset();
            }

            var wait = pause ?? backoff.Next();
            await Task.Delay(wait > asked ? wait : asked, time, cancellationToken); // allowed: backoff
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
            SayRetry("recover the credential", failure);
        }
    }

    // An outage lasts, and each of the conversations tries every few seconds.
    private void SayRetry(string what, Exception exception)
    {
        if (_retries.MayTell(what) is { } silent)
        {
            LogRetry(what, ControlPlaneHttp.Explain(exception), silent);
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
        ControlPlaneException { Code: ControlPlaneException.AgentSuperseded or ControlPlaneException.StatementRequired or ControlPlaneException.SpoolGap } => false,
        HttpRequestException or ControlPlaneException or IOException or UnauthorizedAccessException or InvalidDataException => true,
        OperationCanceledException => !cancellationToken.IsCancellationRequested,
        _ => false,
    };

    [LoggerMessage(1631, LogLevel.Information, "Host {Host} is claimed by this agent: incarnation {Incarnation}")]
    private partial void LogClaimed(string host, long incarnation);

    [LoggerMessage(1632, LogLevel.Warning, "Could not {What}: {Problem}. Enforcement goes on with the last known state; trying again (and {Silent} tries more before)")]
    private partial void LogRetry(string what, string problem, long silent);

    [LoggerMessage(1633, LogLevel.Critical, "Another agent process claimed host {Host}; this one stops. What is armed stays armed. If that was not intended, look for a second agent with this host's credential")]
    private partial void LogSuperseded(string host);

    [LoggerMessage(1636, LogLevel.Warning, "The control plane asks host {Host} to state what it holds: claiming it again")]
    private partial void LogClaimAgain(string host);

    [LoggerMessage(1637, LogLevel.Warning, "The control plane knows less of this host's reports than it answered ({Problem}): claiming the host again, which shows it")]
    private partial void LogForgotten(string problem);

    [LoggerMessage(1635, LogLevel.Error, "The join token was refused ({Problem}). Create another (POST /v1/join-tokens with host {Host}) and start the agent with it")]
    private partial void LogJoinTokenRefused(string problem, string host);

    [LoggerMessage(1634, LogLevel.Critical, "The agent cannot start: {Problem}")]
    private partial void LogCannotStart(string problem);
}
