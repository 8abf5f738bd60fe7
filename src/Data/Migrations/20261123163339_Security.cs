using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Fleet.Data.Migrations
{
    /// <inheritdoc />
    public partial class Security : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<long>(
                name: "RevokedAt",
                table: "join_tokens",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<long>(
                name: "LastUsedAt",
                table: "credentials",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "ReplacedBy",
                table: "credentials",
                type: "TEXT",
                maxLength: 16,
                nullable: true);

            migrationBuilder.CreateIndex(
                name: "IX_credentials_Host",
                table: "credentials",
                column: "Host");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropIndex(
                name: "IX_credentials_Host",
                table: "credentials");

            migrationBuilder.DropColumn(
                name: "RevokedAt",
                table: "join_tokens");

            migrationBuilder.DropColumn(
                name: "LastUsedAt",
                table: "credentials");

            migrationBuilder.DropColumn(
                name: "ReplacedBy",
                table: "credentials");
        }
    }
}
