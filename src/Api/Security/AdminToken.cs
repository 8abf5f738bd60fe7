using Fleet.Api.Startup;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Security;

/// <summary>Makes the first administrator's token and leaves it in a 0600 file in the data folder.</summary>
public sealed class AdminToken(
    IOptions<FleetOptions> options,
    StoreContexts contexts,
    StoreWriter writer,
    TimeProvider time,
    ILogger<AdminToken> logger) : IHostedService
{
    private const string Name = "admin";

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var path = Path.Combine(options.Value.DataFolder, "admin.token");
        await using var db = contexts.OpenReader();
        if (await db.Credentials.AnyAsync(row => row.Host == null, cancellationToken))
        {
            if (!File.Exists(path))
            {
                SecurityLog.AdminTokenGone(logger, path);
            }

            return;
        }

        // The file first: were the process to die in between, the next start makes another; the other way round nobody had it.
        var token = TokenText.Create();
        TokenText.TryGetId(token, out var id);
        DurableFile.Write(path, token + "\n");
        await writer.ExecuteAsync(scope => Task.FromResult(Create(scope, id, TokenText.Hash(token))), cancellationToken);
        SecurityLog.AdminTokenCreated(logger, path);
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    private bool Create(WriteScope scope, string id, string hash)
    {
        var revision = scope.Change(ChangeKinds.CredentialCreated, ChangeResources.Credential(id), "system", "first start");
        scope.Db.Credentials.Add(new CredentialRow
        {
            Id = id,
            Hash = hash,
            Name = Name,
            Scopes = Scopes.Admin,
            CreatedAt = time.GetUtcNow().ToUnixTimeMilliseconds(),
            Version = revision,
        });
        return true;
    }
}
