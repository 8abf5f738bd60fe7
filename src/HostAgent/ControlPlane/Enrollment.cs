using System.Text;
using System.Text.Json;
using Fleet.Contracts.Security;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>
/// Gets the credential of this host: from the state folder, or by a join token on the first start. The secret is made here
/// and is on disk before its hash is sent, so that a lost answer is asked for again with the same one.
/// </summary>
public sealed partial class Enrollment(ControlPlaneClient client, StateFolder folder, IOptions<AgentOptions> options, ILogger<Enrollment> logger)
{
    private string PendingFile => folder.CredentialFile + ".pending";

    public async Task<string> GetCredentialAsync(CancellationToken cancellationToken)
    {
        if (File.Exists(folder.CredentialFile))
        {
            // The join token is ignored from now on.
            return (await File.ReadAllTextAsync(folder.CredentialFile, cancellationToken)).Trim();
        }

        var joinToken = await ReadJoinTokenAsync(cancellationToken)
            ?? throw new CannotStartException(
                $"this host is not enrolled: {folder.CredentialFile} is missing. Create a join token (POST /v1/join-tokens) and start once with Agent:JoinToken or Agent:JoinTokenFile");
        if (!File.Exists(PendingFile))
        {
            DurableFile.Write(PendingFile, Encoding.ASCII.GetBytes(TokenText.Create()));
        }

        var credential = (await File.ReadAllTextAsync(PendingFile, cancellationToken)).Trim();
        if (!TokenText.TryGetId(credential, out var id))
        {
            throw new InvalidDataException($"{PendingFile} does not hold a credential; delete it and start again");
        }

        await client.EnrollAsync(new EnrollRequest(options.Value.Host, joinToken, id, TokenText.Hash(credential)), cancellationToken);
        File.Move(PendingFile, folder.CredentialFile);
        DurableFile.SyncFolder(folder.Root);
        LogEnrolled(options.Value.Host);
        return credential;
    }

    private async Task<string?> ReadJoinTokenAsync(CancellationToken cancellationToken) =>
        options.Value.JoinTokenFile is { } file ? TokenIn(await File.ReadAllTextAsync(file, cancellationToken)) : options.Value.JoinToken;

    /// <summary>The token alone, or the answer of POST /v1/join-tokens as it came.</summary>
    public static string TokenIn(string text)
    {
        try
        {
            using var answer = JsonDocument.Parse(text);
            return answer.RootElement.ValueKind == JsonValueKind.Object && answer.RootElement.TryGetProperty("token", out var token) && token.GetString() is { } value
                ? value
                : text.Trim();
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return text.Trim();
        }
    }

    [LoggerMessage(1601, LogLevel.Information, "Host {Host} is enrolled")]
    private partial void LogEnrolled(string host);
}
